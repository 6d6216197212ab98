"""Worker processes: started, watched, replaced when they die, stopped with all their children.

Each worker leads a session of its own, so that killing its group also ends the SDK's ping process
and the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.endpoint import Endpoint
from worker.process import dies_with_parent

log = logging.getLogger(__name__)

Environment = Callable[[str], dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """How workers are run.

    command: the worker's argv; grace: seconds from TERM to KILL; pause and longest_pause: seconds
    before a worker is replaced that died within `settled` seconds; the pause doubles each time.
    """

    command: Sequence[str]
    folder: Path
    count: int = 1
    grace: float = 15.0
    pause: float = 0.5
    longest_pause: float = 30.0
    settled: float = 10.0


class Fleet:
    """Keeps `count` workers running. `async with` bounds their life.

    environment: makes a worker's variables from its id; ENGINE_PORT is added, a free port each.
    """

    def __init__(self, options: FleetOptions, endpoint: Endpoint, environment: Environment) -> None:
        """Start nothing yet."""
        self._options = options
        self._endpoint = endpoint
        self._environment = environment
        self._stopping = asyncio.Event()
        self._leaving: dict[str, asyncio.Future[float]] = {}
        self._slots: list[asyncio.Task[None]] = []
        self._number = 0

    async def __aenter__(self) -> Fleet:
        """Start the workers."""
        self._slots = [asyncio.create_task(self._keep()) for _ in range(self._options.count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all workers: TERM, the grace period, KILL."""
        self._stopping.set()
        for worker_id in list(self._leaving):
            self.replace(worker_id)
        for error in await asyncio.gather(*self._slots, return_exceptions=True):
            if isinstance(error, BaseException):
                log.error("a worker's supervisor failed: %s", error)

    def replace(self, worker_id: str, *, at_once: bool = False) -> None:
        """Stop a worker, with its grace period or at once; its slot starts another one."""
        leaving = self._leaving.get(worker_id)
        if leaving is not None and not leaving.done():
            leaving.set_result(0.0 if at_once else self._options.grace)

    async def _keep(self) -> None:
        """Run one worker after the other until the fleet stops."""
        pause = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run_worker()
            if time.monotonic() - started >= self._options.settled:
                pause = 0.0
            else:
                pause = min(max(2 * pause, self._options.pause), self._options.longest_pause)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_worker(self) -> None:
        """Run one worker from its start until no process of its group is left."""
        self._number += 1
        worker_id = f"worker-{self._number}"
        leaving = self._leaving[worker_id] = asyncio.get_running_loop().create_future()
        self._endpoint.roster.seen(worker_id)
        try:
            process = await self._spawn(worker_id)
            if process is not None:
                await self._watch(worker_id, process, leaving)
        finally:
            del self._leaving[worker_id]
            self._endpoint.retire(worker_id)

    async def _spawn(self, worker_id: str) -> asyncio.subprocess.Process | None:
        """Start a process in a session of its own; None when there is no such command."""
        environment = {**self._environment(worker_id), "ENGINE_PORT": str(free_port())}
        try:
            process = await asyncio.create_subprocess_exec(
                *dies_with_parent(),
                *self._options.command,
                cwd=self._options.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            log.error("%s can't be started: %s", worker_id, error)  # noqa: TRY400 - no traceback
            return None
        log.info("%s started, process %d", worker_id, process.pid)
        return process

    async def _watch(
        self,
        worker_id: str,
        process: asyncio.subprocess.Process,
        leaving: asyncio.Future[float],
    ) -> None:
        """Wait until the worker dies or has to go; then nothing of its group is left."""
        exited = asyncio.create_task(process.wait())
        try:
            first: set[asyncio.Future[Any]] = {exited, leaving}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                worker = self._endpoint.roster.get(worker_id)
                if worker is not None:
                    self._endpoint.dismiss(worker)
                signal_group(process.pid, signal.SIGTERM)
                await asyncio.wait({exited}, timeout=leaving.result())
        finally:
            signal_group(process.pid, signal.SIGKILL)
            code = await exited
        say = log.info if leaving.done() else log.warning
        say("%s ended with code %d", worker_id, code)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to all processes of a group, if there are any."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def free_port() -> int:
    """Find a TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
