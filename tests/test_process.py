"""Real child processes, started and ended."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.exits import exit_text
from worker.memory_kills import out_of_memory_kills
from worker.process import EngineProcess

ROOT = Path(__file__).parent.parent
LIMIT = 10.0
IGNORE_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
WITH_GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], {session})
print(child.pid, flush=True)
{then}
"""
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


class Child:
    """A spawned process with its lines in a queue."""

    def __init__(self, code: str, on_exit: Callable[[EngineProcess], None] | None = None) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = EngineProcess.spawn(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=dict(os.environ),
            log=self.lines.put,
            on_exit=on_exit,
        )

    def line(self) -> str:
        """The next line it prints."""
        return self.lines.get(timeout=LIMIT)


@contextmanager
def child(code: str, on_exit: Callable[[EngineProcess], None] | None = None) -> Iterator[Child]:
    """A child that is gone after the test."""
    started = Child(code, on_exit)
    try:
        yield started
    finally:
        started.process.kill()


def gone(pid: int) -> bool:
    """Whether a process has ended, waiting a while for it; a zombie has."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def open_files(wanted: int = sys.maxsize) -> int:
    """How many file descriptors this process has, waiting a while for few enough."""
    deadline = time.monotonic() + LIMIT
    while (count := len(list(Path("/proc/self/fd").iterdir()))) > wanted:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return count


async def exit_of(process: EngineProcess) -> int:
    return await asyncio.wait_for(process.wait_exit(), LIMIT)


async def test_exit_code_is_reported() -> None:
    with child("raise SystemExit(7)") as started:
        assert await exit_of(started.process) == 7


async def test_a_death_is_seen_within_milliseconds() -> None:
    with child(SLEEP) as started:
        started.line()
        os.kill(started.process.pid, signal.SIGKILL)
        began = time.monotonic()
        code = await exit_of(started.process)

        assert code == -signal.SIGKILL
        assert time.monotonic() - began < 0.5


async def test_several_tasks_may_wait_for_the_exit() -> None:
    with child(SLEEP) as started:
        waiters = [asyncio.ensure_future(exit_of(started.process)) for _ in range(3)]
        await asyncio.sleep(0)
        await started.process.stop(LIMIT)

        assert await asyncio.gather(*waiters) == [-signal.SIGTERM] * 3


async def test_a_cancelled_waiter_does_not_disturb_the_others() -> None:
    with child(SLEEP) as started:
        cancelled, other = (asyncio.ensure_future(exit_of(started.process)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await started.process.stop(LIMIT)

        assert await other == -signal.SIGTERM


def test_a_death_before_the_loop_exists_is_seen_by_a_later_loop() -> None:
    with child("raise SystemExit(3)") as started:
        deadline = time.monotonic() + LIMIT
        while started.process.alive and time.monotonic() < deadline:
            time.sleep(0.01)

        assert asyncio.run(exit_of(started.process)) == 3


def test_a_waiter_of_a_closed_loop_does_not_stop_the_watching() -> None:
    """The loop ends while a task waits; the next loop still learns of the exit."""
    with child(SLEEP) as started:
        waiter = started.process.wait_exit()

        async def begin_to_wait() -> None:
            waiter.send(None)

        asyncio.run(begin_to_wait())
        started.process.kill()

        assert asyncio.run(exit_of(started.process)) == -signal.SIGKILL
        waiter.close()


async def test_on_exit_is_called_once_with_the_process() -> None:
    exits: queue.Queue[EngineProcess] = queue.Queue()
    with child("pass", exits.put) as started:
        assert await asyncio.to_thread(exits.get, timeout=LIMIT) is started.process
        assert not started.process.alive
        assert exits.empty()


async def test_stop_asks_with_term_first() -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("up", flush=True)
time.sleep(60)
"""
    with child(code) as started:
        started.line()
        await started.process.stop(LIMIT)

        assert started.process.returncode == 5


async def test_stop_kills_who_ignores_term() -> None:
    with child(IGNORE_TERM) as started:
        started.line()
        await started.process.stop(0.1)

        assert started.process.returncode == -signal.SIGKILL


async def test_a_cancelled_stop_kills() -> None:
    with child(IGNORE_TERM) as started:
        started.line()
        stopping = asyncio.ensure_future(started.process.stop(60))
        await asyncio.sleep(0.05)
        stopping.cancel()

        assert await exit_of(started.process) == -signal.SIGKILL


async def test_stop_twice_and_after_the_end_is_harmless() -> None:
    with child(SLEEP) as started:
        await asyncio.gather(started.process.stop(LIMIT), started.process.stop(LIMIT))
        await started.process.stop(LIMIT)

        assert started.process.returncode == -signal.SIGTERM


async def test_stop_ends_the_whole_group() -> None:
    code = WITH_GRANDCHILD.format(session="", then="time.sleep(60)")
    with child(code) as started:
        grandchild = int(started.line())
        await started.process.stop(LIMIT)

        assert gone(grandchild)


async def test_a_dead_leader_takes_its_group_along() -> None:
    code = WITH_GRANDCHILD.format(session="", then="sys.exit(1)")
    with child(code) as started:
        grandchild = int(started.line())

        assert await exit_of(started.process) == 1
        assert gone(grandchild)


async def test_a_pipe_held_open_outside_the_group_hangs_nothing() -> None:
    code = WITH_GRANDCHILD.format(session="start_new_session=True", then="sys.exit(1)")
    with child(code) as started:
        grandchild = int(started.line())
        try:
            began = time.monotonic()
            await exit_of(started.process)
            await started.process.stop(LIMIT)

            assert time.monotonic() - began < 1.0
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_kill_is_synchronous() -> None:
    with child(IGNORE_TERM) as started:
        started.line()
        started.process.kill()

        assert started.process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_the_engine_dies_with_a_killed_worker() -> None:
    worker = f"""
import os, sys, time
from pathlib import Path
from worker.process import EngineProcess
argv = [sys.executable, "-c", {IGNORE_TERM!r}]
lines = []
engine = EngineProcess.spawn(argv, cwd=Path.cwd(), env=dict(os.environ), log=lines.append)
while not lines:
    time.sleep(0.01)
print(engine.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", worker], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        engine = int(run.stdout.readline())
        run.kill()

        assert gone(engine)


@pytest.mark.skipif(sys.platform != "linux", reason="the launcher is Linux's")
def test_what_a_guarded_engine_started_dies_with_a_killed_worker_too() -> None:
    engine = WITH_GRANDCHILD.format(session="", then="time.sleep(60)")
    worker = f"""
import os, sys, time
from pathlib import Path
from worker.process import EngineProcess
argv = [sys.executable, "-c", {engine!r}]
EngineProcess.spawn(
    argv,
    cwd=Path.cwd(),
    env=dict(os.environ),
    log=lambda line: print(line, flush=True),
    guarded=True,
)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", worker], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        grandchild = int(run.stdout.readline())
        run.kill()

        assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="the launcher is Linux's")
def test_the_launcher_starts_nothing_when_its_parent_is_gone() -> None:
    argv = [sys.executable, str(ROOT / "worker/launcher.py"), "1", sys.executable, "-c", "print(1)"]
    run = subprocess.run(argv, capture_output=True, check=False, timeout=LIMIT)

    assert (run.returncode, run.stdout) == (127, b"")


async def test_a_missing_program_ends_with_127_and_says_why() -> None:
    process = EngineProcess.spawn(["/no/such/program"], cwd=ROOT, env={}, log=lambda _: None)

    assert await exit_of(process) == 127
    assert process.tail() == ["the program can't be run: No such file or directory"]


async def test_output_and_errors_come_line_by_line() -> None:
    with child("import sys; print('out', flush=True); sys.stderr.write('err')") as started:
        assert [started.line(), started.line()] == ["out", "err"]


async def test_invalid_utf8_is_replaced() -> None:
    with child(r"import os; os.write(1, b'caf\xe9\n')") as started:
        assert started.line() == "caf\ufffd"


async def test_the_tail_is_complete_when_the_exit_is_known() -> None:
    with child("[print(n) for n in range(100)]") as started:
        await exit_of(started.process)

        assert started.process.tail() == [str(n) for n in range(50, 100)]


async def test_a_flood_of_output_blocks_nobody_and_is_thinned_out() -> None:
    code = "import os; [os.write(1, b'x' * 79 + b'\\n') for n in range(100_000)]; print('end')"
    with child(code) as started:
        assert await exit_of(started.process) == 0
        assert started.process.tail()[-1] == "end"
        assert started.lines.qsize() < 10_000


async def test_a_line_without_end_stays_small() -> None:
    with child("import os; [os.write(1, b'x' * 65536) for n in range(100)]") as started:
        await exit_of(started.process)

        assert [len(line) for line in started.process.tail()] == [4096]


async def test_a_broken_log_does_not_block_the_engine() -> None:
    def broken(_: str) -> None:
        raise ValueError("I/O operation on closed file")

    code = "import os; [os.write(1, b'x' * 999 + b'\\n') for n in range(1000)]"
    argv = [sys.executable, "-c", code]
    process = EngineProcess.spawn(argv, cwd=ROOT, env=dict(os.environ), log=broken)

    assert await exit_of(process) == 0


async def test_no_file_descriptor_is_left_open() -> None:
    before = open_files()
    for _ in range(3):
        with child("pass") as started:
            await exit_of(started.process)

    assert await asyncio.to_thread(open_files, before) <= before


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (-9, "killed by signal 9 (out of memory, or from outside)"),
        (-4, "killed by signal 4 (this processor lacks an instruction that it needs)"),
        (-40, "killed by signal 40"),
    ],
)
def test_an_exit_in_words(code: int, text: str) -> None:
    assert exit_text(code) == text


@pytest.mark.parametrize(
    ("out_of_memory", "cause"), [(True, "out of memory"), (False, "from outside")]
)
def test_a_kill_for_want_of_memory_is_told_from_another(
    out_of_memory: bool,
    cause: str,
) -> None:
    assert f"killed by signal 9 ({cause})" == exit_text(-9, out_of_memory=out_of_memory)


@pytest.mark.parametrize(
    ("text", "kills"),
    [("low 0\noom 4\noom_kill 3\noom_group_kill 0\n", 3), ("low 0\n", None), ("oom_kill x", None)],
)
def test_the_kernels_count_of_kills_for_want_of_memory(
    tmp_path: Path, text: str, kills: int | None
) -> None:
    (tmp_path / "memory.events").write_text(text)

    assert kills == out_of_memory_kills(tmp_path)


@pytest.mark.parametrize(
    ("program", "by_itself"),
    [
        ("import os; os.abort()", True),
        ("raise SystemExit(1)", True),
        ("import os; os.kill(os.getpid(), 9)", False),
        ("import os; os.kill(os.getpid(), 15)", False),
    ],
)
async def test_an_end_by_itself_is_told_from_one_from_outside(
    program: str, by_itself: bool
) -> None:
    with child(program) as started:
        assert not started.process.ended_by_itself
        await exit_of(started.process)

        assert by_itself == started.process.ended_by_itself
