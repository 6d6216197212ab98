"""One engine process with its whole process group: started, read, watched and ended as one.

Nothing heavy is imported here: the engine is started before the rest of the worker is loaded.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from worker.engine_log import EngineLog, LogLine
from worker.exits import exit_text, from_outside
from worker.latch import Latch
from worker.memory_kills import out_of_memory_kills
from worker.processor_time import group_seconds

_LAUNCHER = Path(__file__).with_name("launcher.py")
_READ_BYTES = 65536
_TICK_MS = 500
_LAST_OUTPUT_SECONDS = 0.1
_KILL_SECONDS = 5.0
OnExit = Callable[["EngineProcess"], None]


class EngineProcess:
    """A child that leads its own process group; made with `spawn`.

    When the leader is gone the rest of its group is killed, so a dead engine leaves nothing
    behind. When the worker itself is killed the leader dies with it (see launcher.py).
    """

    def __init__(
        self, child: subprocess.Popen[bytes], output: EngineLog, on_exit: OnExit | None
    ) -> None:
        self.pid = child.pid
        self._child = child
        self._output = output
        self._on_exit = on_exit
        self._kills = out_of_memory_kills()
        self._exit: Latch[int] = Latch()
        # Held while the group is signalled and while the leader is reaped: its id, which is the
        # group's too, may belong to somebody else afterwards.
        self._lock = threading.Lock()
        self._reaped = False
        self._reader = threading.Thread(target=self._read, name="engine-output", daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: LogLine,
        tail_lines: int = 50,
        unwanted: str = "",
        on_exit: OnExit | None = None,
        guarded: bool = False,
    ) -> EngineProcess:
        """Start a program in a new session; call it from a thread that lives as long as the worker.

        log: gets each line of output, in another thread; those with `unwanted` in them are dropped.
        on_exit: called once in another thread, when the process is gone.
        guarded: what the program starts dies with a killed worker too; costs a shell that waits.
        Raises OSError if no process can be made; a program that is missing exits with 127.
        """
        child = subprocess.Popen(
            [*dies_with_parent(guarded=guarded), *argv],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        return cls(child, EngineLog(log, tail_lines=tail_lines, unwanted=unwanted), on_exit)

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal, None while the process lives."""
        return self._exit.value

    @property
    def alive(self) -> bool:
        """The process is there (which does not say that it answers)."""
        return self.returncode is None

    def processor_seconds(self) -> float | None:
        """What the whole group has used of the processor; None where that can't be told."""
        return group_seconds(self.pid)

    def tail(self) -> list[str]:
        """Return the last lines of its output, oldest first."""
        return self._output.tail()

    def exit_text(self) -> str:
        """How it ended, in words for people; "running" while it lives."""
        return "running" if self.returncode is None else self.describe_exit(self.returncode)

    def describe_exit(self, code: int) -> str:
        """How this process or a child of it ended just now, in words for people."""
        kills = out_of_memory_kills()
        known = kills is not None and self._kills is not None
        return exit_text(code, out_of_memory=kills != self._kills if known else None)

    @property
    def ended_by_itself(self) -> bool:
        """It is gone and nobody ended it, so what it printed tells the cause."""
        return self.returncode is not None and not from_outside(self.returncode)

    async def wait_exit(self) -> int:
        """Wait until the process is gone and return its exit code; any number may wait."""
        return await self._exit.wait()

    async def stop(self, grace: float) -> None:
        """TERM to the group, KILL after `grace` seconds; returns when the leader is reaped.

        Nothing happens when it is gone already. A cancelled stop kills at once.
        """
        import asyncio  # noqa: PLC0415 - a caller has a loop, so it is loaded already

        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait_exit(), grace)
        except asyncio.TimeoutError:
            self._signal(signal.SIGKILL)
            # A process that hangs in the kernel (a driver, a network disk) outlives even KILL.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wait_exit(), _KILL_SECONDS)
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise

    def kill(self) -> None:
        """Kill the group now and wait for its end, blocking; for the way out of the worker."""
        self._signal(signal.SIGKILL)
        self._exit.wait_blocking(_KILL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless the leader was reaped."""
        with self._lock:
            if not self._reaped:
                self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        """Signal the group; on some systems one that has only zombies left can't be."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _watch(self) -> None:
        """Wait for the end, kill who is left of the group, reap, tell everybody."""
        _wait_unreaped(self._child)
        with self._lock:
            self._signal_group(signal.SIGKILL)
            code = self._child.wait()
            self._reaped = True
        # The pipe ends with the group, unless somebody left the group and holds it open.
        self._reader.join(_LAST_OUTPUT_SECONDS)
        self._exit.set(code)
        if self._on_exit is not None:
            self._on_exit(self)

    def _read(self) -> None:
        """Read the output to its end; a broken log must not stop that, or the engine blocks."""
        pipe = self._child.stdout
        assert pipe is not None  # noqa: S101 - spawn asks for a pipe
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        with pipe:
            while self.alive:
                data = os.read(pipe.fileno(), _READ_BYTES) if poll.poll(_TICK_MS) else None
                with suppress(OSError, ValueError):
                    self._output.tick() if data is None else self._output.feed(data)
                if data == b"":
                    break
        with suppress(OSError, ValueError):
            self._output.close()


def dies_with_parent(*, guarded: bool = False) -> list[str]:
    """Make the start of a command that dies with this process; nothing but on Linux."""
    if sys.platform != "linux":
        return []
    guard = ["--guard"] if guarded else []
    # Isolated and without site-packages it starts in 20 ms.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *guard]


def _wait_unreaped(child: subprocess.Popen[bytes]) -> None:
    """Wait for a child's end; on Linux it stays a zombie, so that its id stays its own."""
    if sys.platform != "linux":
        child.wait()
        return
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
