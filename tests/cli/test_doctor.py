"""The doctor: what it finds, and what it says to do."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli import doctor, machine_checks, worker_checks
from cli.check import BAD, NOTE, OK
from worker.settings import Settings


def test_a_machine_that_runs_the_tests_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.run({}, as_json=True)

    report = json.loads(capsys.readouterr().out)
    assert (0, True) == (code, report["ok"])


def test_a_python_without_any_package_is_examined_all_the_same() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-S", "-m", "cli", "doctor"]

    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert (1, "") == (done.returncode, done.stderr)
    assert "BAD   packages     missing: aiohttp" in done.stdout


def test_every_wrong_setting_is_named_and_the_code_is_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = doctor.run({"ENGINE_SLOTS": "many", "JOB_TIMEOUT": "-1"}, as_json=False)

    out = capsys.readouterr().out
    assert 1 == code
    assert "ENGINE_SLOTS is 'many'" in out
    assert "JOB_TIMEOUT is '-1'" in out
    assert "2 to mend" in out


def test_a_key_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    key = "rpa_" + "C4N4RY" * 6

    doctor.run({"RUNPOD_API_KEY": key, "HF_TOKEN": "canary "}, as_json=False)

    out = capsys.readouterr().out
    assert "C4N4RY" not in out
    assert "canary" not in out


def test_the_shape_of_keys_is_judged() -> None:
    key = "rpa_" + "C4N4RY" * 6

    checks = worker_checks.keys({"RUNPOD_API_KEY": key, "HF_TOKEN": '"hf_quoted"'})

    assert [OK, NOTE] == [check.state for check in checks]


def test_an_old_python_is_bad() -> None:
    assert BAD == machine_checks.python((3, 9, 2)).state


def test_a_processor_without_avx2_is_bad(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : sse4_2\n")

    assert BAD == machine_checks.processor(cpuinfo, "x86_64").state


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only needed on Linux")
def test_a_missing_library_is_bad_and_names_the_package() -> None:
    check = machine_checks.libgomp("libcanary.so.1")

    assert (BAD, "on Debian: apt-get install libgomp1") == (check.state, check.advice)


def test_a_missing_package_is_bad() -> None:
    assert BAD == machine_checks.packages(("aiohttp", "no-such-package-here")).state


def test_the_container_s_limit_counts(tmp_path: Path) -> None:
    limit, meminfo = tmp_path / "memory.max", tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:   8000000 kB\n")

    limit.write_text("max\n")
    unlimited = machine_checks.memory(meminfo, limit)
    limit.write_text("500000000\n")
    limited = machine_checks.memory(meminfo, limit)

    assert [OK, BAD] == [unlimited.state, limited.state]


def test_little_disk_is_noted(tmp_path: Path) -> None:
    assert NOTE == machine_checks.disk(tmp_path, least=1e18).state


@pytest.mark.parametrize(("code", "state"), [(0, OK), (9, BAD)])
def test_a_gpu_is_asked_for_with_the_driver_s_tool(tmp_path: Path, code: int, state: str) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 550.1'\nexit {code}\n")
    tool.chmod(0o755)

    assert state == machine_checks.gpu(str(tool)).state


def test_a_model_to_download_is_noted_without_the_keys_of_its_url() -> None:
    url = f"https://host/a.gguf?key=canary#sha256={'0' * 64}"
    checks = [worker_checks.model(Settings(model=model)) for model in ("org/name:Q4_K_M", url)]

    assert [NOTE, NOTE] == [check.state for check in checks]
    assert "canary" not in str(checks)


def test_a_missing_model_is_bad(tmp_path: Path) -> None:
    settings = Settings(model=str(tmp_path / "canary.gguf"))

    assert BAD == worker_checks.model(settings).state


@pytest.mark.parametrize(("files", "state"), [((), BAD), (("server.py",), OK)])
def test_a_checkout_has_a_server(tmp_path: Path, files: tuple[str, ...], state: str) -> None:
    for name in files:
        (tmp_path / name).touch()

    assert state == worker_checks.model(Settings(webui_dir=tmp_path)).state


def test_a_port_that_is_taken_is_noted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = worker_checks.port("engine port", server.getsockname()[1], "set ENGINE_PORT")

    assert (NOTE, "set ENGINE_PORT") == (check.state, check.advice)


def test_a_volume_is_found(tmp_path: Path) -> None:
    checks = [worker_checks.volume(tmp_path), worker_checks.volume(tmp_path / "none")]

    assert [OK, NOTE] == [check.state for check in checks]


def test_half_of_the_platform_s_variables_is_bad(tmp_path: Path) -> None:
    whole = {
        "RUNPOD_WEBHOOK_GET_JOB": "u",
        "RUNPOD_WEBHOOK_POST_OUTPUT": "u",
        "RUNPOD_AI_API_KEY": "k",
    }
    half = {"RUNPOD_WEBHOOK_GET_JOB": "u"}

    checks = [worker_checks.platform_variables(each, tmp_path / "c") for each in (whole, half, {})]

    assert [OK, BAD, NOTE] == [check.state for check in checks]
