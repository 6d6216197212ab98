"""The scripts, run for real in a copy of the project; a small program stands in for Python."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
LIMIT = 10.0  # seconds for anything that a test waits for
ONE_SET_UP = ["venv", "pip", "pip", "verify"]

# Answers as Python does to what the scripts ask. It notes each call in the file $CALLS, and pip
# does what is in $PIP.
FAKE_PYTHON = """#!/usr/bin/env bash
set -eu
note() { printf '%s\\n' "$1" >>"$CALLS"; }
case "$*" in
"-c import importlib"*) printf '%s %s\\n' "${ABLE-yes}" "$0" ;;
"-c import ctypes"*) [[ ${LIBGOMP-yes} == yes ]] ;;
"-IS -c import fcntl"*) exec "$REAL_PYTHON" "$@" ;;
"-m venv "*) note venv; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
"-m pip install "*) note pip; eval "${PIP-}" ;;
"-m worker.models --verify") note verify ;;
"handler.py"*) note handler; shift; printf '[%s]' "$$" "$@"; printf '\\n' ;;
*) note "$*"; [[ ${FAILING-none} != "$2" ]] || exit "${STATUS-1}" ;;
esac
"""


@dataclass
class Copy:
    """A copy of the project's scripts, with the environment variables to run them in."""

    folder: Path
    variables: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> Path:
        return self.folder / ".venv"

    def start(
        self, *arguments: str, script: str | Path = "start.sh", **variables: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(self.folder / script), *arguments],
            cwd="/",
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, script: str | Path = "start.sh", **variables: str
    ) -> tuple[int, str, str]:
        """Run a script to its end: status, stdout, stderr."""
        process = self.start(*arguments, script=script, **variables)
        output, errors = process.communicate(timeout=LIMIT)
        return process.returncode, output, errors

    def seen(self) -> list[str]:
        """What Python was asked since the last `calls`."""
        path = Path(self.variables["CALLS"])
        return path.read_text().splitlines() if path.exists() else []

    def calls(self) -> list[str]:
        """What Python was asked since the last `calls`, when no script is running."""
        calls = self.seen()
        Path(self.variables["CALLS"]).unlink(missing_ok=True)
        return calls

    def processes(self) -> set[int]:
        """All living processes that were started with this copy's variables."""
        mark = f"CALLS={self.variables['CALLS']}".encode()
        return {
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/environ")
            if mark in _read(path)
        }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended in between, or is another user's
        return b""


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A fresh copy, in a folder whose name has a space; every process is gone afterwards."""
    folder = tmp_path / "the project"
    for name in ("scripts", ".ci"):
        shutil.copytree(PROJECT / name, folder / name)
    shutil.copy(PROJECT / "start.sh", folder)
    for name in ("requirements.txt", "requirements-model.txt", "requirements-dev.txt"):
        (folder / name).write_text("one==1\n")
    python = tmp_path / "bin" / "fake-python"
    python.parent.mkdir()
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    copy = Copy(
        folder,
        {
            "PATH": os.defpath + ":/usr/sbin:/sbin",
            "PYTHON": str(python),
            "REAL_PYTHON": sys.executable,
            "CALLS": str(tmp_path / "calls"),
        },
    )
    yield copy
    for pid in copy.processes():
        os.kill(pid, signal.SIGKILL)
    for process in copy.started:
        process.communicate()


def _tools(copy: Copy, **replaced: str) -> str:
    """Make a folder with the few tools that the scripts need, some replaced by a bash line."""
    folder = copy.folder.parent / "tools"
    folder.mkdir()
    for name in ("bash", "cat", "grep", "mkdir", "readlink", "rm", "tail", "cp", "sleep"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, line in replaced.items():
        path = folder / name.replace("_", "-")
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)
    return str(folder)


def test_the_first_start_sets_up_and_hands_every_argument_on(copy: Copy) -> None:
    process = copy.start("--test_input", '{"input": "a  b"}', "")
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert output == f'[{process.pid}][--test_input][{{"input": "a  b"}}][]\n'
    assert copy.calls() == [*ONE_SET_UP, "handler"]


def test_the_second_start_runs_nothing_but_the_handler_and_says_nothing(copy: Copy) -> None:
    copy.run()
    copy.calls()
    status, _, errors = copy.run()
    assert (status, errors, copy.calls()) == (0, "", ["handler"])


def test_python_takes_the_place_of_the_shell(copy: Copy) -> None:
    copy.run()
    process = copy.start()
    output, _ = process.communicate(timeout=LIMIT)
    assert output == f"[{process.pid}]\n"


def test_the_output_of_the_set_up_goes_to_stderr(copy: Copy) -> None:
    process = copy.start(PIP="echo to stdout; echo to stderr >&2")
    output, errors = process.communicate(timeout=LIMIT)
    assert output == f"[{process.pid}]\n"
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["setup", "setup"]


def test_it_starts_through_a_link(copy: Copy) -> None:
    link = copy.folder.parent / "link"
    link.symlink_to(copy.folder / "start.sh")
    status, _, errors = copy.run(script=link)
    assert status == 0, errors
    assert copy.environment.is_dir()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-model.txt"])
def test_changed_requirements_are_set_up(copy: Copy, name: str) -> None:
    copy.run()
    copy.calls()
    (copy.folder / name).write_text("one==2\n")
    copy.run()
    assert copy.calls() == [*ONE_SET_UP, "handler"]


def test_other_requirements_are_nothing_to_the_worker(copy: Copy) -> None:
    copy.run()
    copy.calls()
    (copy.folder / "requirements-dev.txt").write_text("one==2\n")
    copy.run()
    assert copy.calls() == ["handler"]


def test_requirements_that_change_during_the_set_up_do_not_count_as_installed(copy: Copy) -> None:
    status, _, _ = copy.run(PIP='echo "two==2" >>requirements.txt')
    assert (status, copy.environment.exists()) == (2, False)


def test_a_moved_project_is_set_up_anew(copy: Copy) -> None:
    copy.run()
    copy.calls()
    copy.folder = copy.folder.rename(copy.folder.with_name("moved"))
    copy.run()
    assert copy.calls() == [*ONE_SET_UP, "handler"]


def test_an_environment_whose_python_is_gone_is_made_anew(copy: Copy) -> None:
    copy.run()
    copy.calls()
    (copy.environment / "bin" / "python").unlink()
    copy.run()
    assert copy.calls() == [*ONE_SET_UP, "handler"]


def test_a_half_made_environment_is_made_anew(copy: Copy) -> None:
    (copy.environment / "lib").mkdir(parents=True)
    status, _, errors = copy.run()
    assert (status, (copy.environment / "lib").exists()) == (0, False), errors


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_during_the_set_up_leaves_nothing_behind(copy: Copy, name: str) -> None:
    process = copy.start(PIP="sleep 60")
    _wait_until(lambda: "pip" in copy.seen())
    process.send_signal(signal.Signals[name])
    process.wait(LIMIT)
    assert process.returncode == -signal.Signals[name]
    assert (copy.processes(), copy.environment.exists()) == (set(), False)


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_a_killed_set_up_leaves_nothing_behind(
    copy: Copy, kill: Callable[[int, int], None]
) -> None:
    process = copy.start(PIP="sleep 60")
    _wait_until(lambda: "pip" in copy.seen())
    kill(process.pid, signal.SIGKILL)
    process.wait(LIMIT)
    _wait_until(lambda: not copy.processes())
    assert not copy.environment.exists()


def test_of_two_starts_at_once_one_sets_up_and_the_other_waits(copy: Copy) -> None:
    first, second = copy.start(PIP="sleep 0.3"), copy.start(PIP="sleep 0.3")
    errors = [process.communicate(timeout=LIMIT)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sorted(copy.calls()) == sorted([*ONE_SET_UP, "handler", "handler"])
    assert sum("waiting for it" in text for text in errors) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_start_that_is_stopped_while_it_waits_spoils_nothing(copy: Copy, name: str) -> None:
    gate = copy.folder.parent / "gate"
    os.mkfifo(gate)
    first = copy.start(PIP=f"cat '{gate}'")
    _wait_until(lambda: "pip" in copy.seen())
    alone = copy.processes()
    second = copy.start()
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    second.send_signal(signal.Signals[name])
    second.wait(LIMIT)
    _wait_until(lambda: copy.processes() <= alone)
    gate.write_text("")
    _wait_until(lambda: copy.seen().count("pip") == 2)
    gate.write_text("")
    first.communicate(timeout=LIMIT)
    assert first.returncode == 0


def test_a_failing_pip_shows_its_last_lines_and_leaves_nothing(copy: Copy) -> None:
    status, output, errors = copy.run(PIP="seq 100; echo 'ERROR: no connection' >&2; exit 1")
    lines = errors.splitlines()
    assert (status, output, copy.environment.exists()) == (2, "", False)
    assert (lines[1], lines[-2]) == ("90", "ERROR: no connection")
    assert lines[-1].startswith("error: '")
    assert "-m pip install' failed" in lines[-1]


def test_a_terminal_shows_what_the_set_up_is_doing_and_clears_it(copy: Copy) -> None:
    go = copy.folder / "go"
    pip = f"echo Downloading it; until [[ -e '{go}' ]]; do sleep 0.05; done"
    terminal, errors = os.openpty()
    process = subprocess.Popen(
        [str(copy.folder / "start.sh")],
        env={**copy.variables, "PIP": pip},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )
    os.close(errors)
    shown = b""
    while b"setup: Downloading it" not in shown:
        shown += os.read(terminal, 1000)
    go.touch()
    assert 0 == process.wait(LIMIT)
    with contextlib.suppress(OSError):  # nobody writes any more
        while True:
            shown += os.read(terminal, 1000)
    os.close(terminal)
    assert b"\r\x1b[Ksetup: Downloading it" in shown
    assert shown.endswith(b"\r\x1b[Ksetup: .venv is ready\r\n")


def test_a_python_that_does_not_run_is_named(copy: Copy) -> None:
    status, output, errors = copy.run(PYTHON="python9")
    assert (status, output) == (2, "")
    assert errors == "error: PYTHON is 'python9', which is not a Python 3.10 or newer that runs.\n"


def test_without_a_python_it_says_what_to_install(copy: Copy) -> None:
    status, _, errors = copy.run(PATH=_tools(copy), PYTHON="")
    assert status == 2
    assert errors == (
        "error: there is no Python 3.10 or newer; on Debian: apt-get install python3 python3-venv\n"
    )


def test_a_python_that_is_found_must_run_and_be_able(copy: Copy) -> None:
    """Like a version manager's shim for a version that is not there."""
    tools = _tools(
        copy,
        **{
            "python3.12": "exit 127",
            "python3.11": f'ABLE=no exec {copy.variables["PYTHON"]} "$@"',
            "python3": f'exec {copy.variables["PYTHON"]} "$@"',
        },
    )
    status, _, errors = copy.run(PATH=tools, PYTHON="")
    assert status == 0, errors


def test_a_python_without_venv_is_named_with_its_package(copy: Copy) -> None:
    status, _, errors = copy.run(ABLE="no")
    assert status == 2
    assert errors == (
        f"error: {copy.variables['PYTHON']} has no venv module; "
        "on Debian: apt-get install python3-venv\n"
    )


def test_a_missing_libgomp_is_named_with_its_package(copy: Copy) -> None:
    status, _, errors = copy.run(PATH=_tools(copy), LIBGOMP="no")
    assert (status, copy.environment.exists()) == (2, False)
    assert errors.endswith("error: libgomp.so.1 is missing; on Debian: apt-get install libgomp1\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_a_missing_libgomp_is_installed_by_root(copy: Copy) -> None:
    tools = _tools(copy, apt_get='printf "apt-get %s\\n" "$*" >>"$CALLS"')
    status, _, errors = copy.run(PATH=tools, LIBGOMP="no")
    assert status == 0, errors
    assert copy.calls()[:2] == [
        "apt-get update",
        "apt-get install --yes --no-install-recommends libgomp1",
    ]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86_64")
def test_a_processor_without_avx2_is_refused(copy: Copy) -> None:
    status, _, errors = copy.run(PATH=_tools(copy, grep="exit 1"))
    assert status == 2
    assert errors == (
        "error: this machine's processor has no AVX2, which the embedded engine needs.\n"
    )


def test_a_given_python_is_used_without_a_set_up(copy: Copy) -> None:
    status, _, errors = copy.run(WORKER_PYTHON=copy.variables["PYTHON"])
    assert (status, errors, copy.calls()) == (0, "", ["handler"])


def test_a_given_python_that_is_not_there_is_named(copy: Copy) -> None:
    status, _, errors = copy.run(WORKER_PYTHON="/no/python")
    assert (status, errors) == (2, "error: WORKER_PYTHON is '/no/python', which can't be run.\n")


def test_setup_starts_nothing(copy: Copy) -> None:
    status, output, _ = copy.run(script="scripts/setup")
    assert (status, output, copy.calls()) == (0, "", ONE_SET_UP)


def test_the_tests_have_an_environment_of_their_own_and_get_the_arguments(copy: Copy) -> None:
    copy.run("tests/test_x.py", "-k", "a or b", script="scripts/test")
    assert copy.calls() == [*ONE_SET_UP, "-m pytest tests/test_x.py -k a or b"]
    assert (copy.environment.exists(), (copy.folder / ".venv.dev").exists()) == (False, True)


@pytest.fixture
def tooled(copy: Copy) -> Copy:
    """A copy that has its Python and the tools beside it already."""
    for name in ("hadolint", "shellcheck"):
        tool = Path(copy.variables["PYTHON"]).with_name(name)
        tool.write_text(f'#!/bin/bash\nprintf "{name}\\n" >>"$CALLS"\n')
        tool.chmod(0o755)
    copy.variables["WORKER_PYTHON"] = copy.variables["PYTHON"]
    return copy


def test_every_check_runs_and_each_failed_one_is_named(tooled: Copy) -> None:
    status, _, errors = tooled.run(script="scripts/check", FAILING="ruff")
    assert (status, errors) == (1, "failed: ruff format\nfailed: ruff check\n")
    assert tooled.calls() == [
        "-m ruff format --check",
        "-m ruff check",
        "-m mypy",
        "hadolint",
        "shellcheck",
    ]


@pytest.mark.parametrize(
    ("failing", "status", "expected"),
    [("none", "0", 0), ("mypy", "1", 1), ("pytest", "1", 1), ("pytest", "5", 1)],
)
def test_ci_fails_when_a_check_fails_or_a_test_or_no_test_ran(
    tooled: Copy, failing: str, status: str, expected: int
) -> None:
    assert tooled.run(script=".ci/run", FAILING=failing, STATUS=status)[0] == expected
    assert tooled.calls()[-1] == "-m pytest"
