"""A stage for accidents: the emulator, its workers' processes, and a client."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from emulator.faults import Faults
from emulator.fleet import FleetOptions
from emulator.server import Emulator, running_emulator

ROOT = Path(__file__).parent.parent
STAND_IN = Path(__file__).parent / "library"
READY_SECONDS = 60.0
_POLL_SECONDS = 0.01
_OPEN = ("IN_QUEUE", "IN_PROGRESS")


class Weather(Faults):
    """Faults that begin while the emulator runs: the next requests of one operation fail.

    A fault is an HTTP status, "reset" (the connection is cut) or "silence" (what was asked for is
    done, the answer comes `silence` seconds later).
    """

    def __init__(self, silence: float = 3.0) -> None:
        """Start with fair weather."""
        super().__init__()
        self._silence = silence
        self._due: dict[str, list[int | str]] = {}

    def next(self, operation: str, fault: int | str, times: int) -> None:
        """Let the next requests of an operation fail; 0 times ends what is left."""
        self._due[operation] = [fault] * times

    def observe(self, operation: str, request: web.Request) -> None:
        """Cut the connection of a request when that is due."""
        due = self._due.get(operation)
        if due and due[0] == "reset" and request.transport is not None:
            due.pop(0)
            request.transport.abort()

    def before(self, operation: str) -> None:
        """Refuse the request when an error is due."""
        due = self._due.get(operation)
        if due and isinstance(due[0], int):
            self._errors[operation] = [due[0]]
            due.pop(0)
        super().before(operation)

    async def after(self, operation: str) -> None:
        """Hold the answer back when silence is due."""
        due = self._due.get(operation)
        if due and due[0] == "silence":
            due.pop(0)
            await asyncio.sleep(self._silence)


@dataclass
class Stage:
    """A client of an emulator whose workers are processes of this machine.

    struck: when the accident happened, in the event loop's time.
    """

    emulator: Emulator
    http: aiohttp.ClientSession
    weather: Weather
    struck: float = 0.0

    async def run(self, endpoint: str, *, policy: Any = None, **payload: Any) -> str:
        """Queue a job; its id."""
        job: dict[str, Any] = {
            "input": {"api": {"method": "POST", "endpoint": endpoint}, "payload": payload}
        }
        if policy is not None:
            job["policy"] = policy
        async with self.http.post(f"{self.emulator.base}/run", json=job) as response:
            answer = await response.json()
        return str(answer["id"])

    async def result(self, job_id: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """The answer of a job, once it is over; asyncio.TimeoutError when it never is."""
        job = self.emulator.jobs[job_id]
        await until(lambda: job.status not in _OPEN, seconds)
        async with self.http.get(f"{self.emulator.base}/status/{job_id}") as response:
            answer: dict[str, Any] = await response.json()
        return answer

    async def until_taken(self, job_id: str) -> None:
        """Wait until a worker runs the job."""
        await until(lambda: self.emulator.jobs[job_id].status == "IN_PROGRESS", READY_SECONDS)

    async def until_streaming(self, job_id: str) -> None:
        """Wait until a chunk of the job has come."""
        await until(lambda: self.emulator.jobs[job_id].chunk_posts > 0, READY_SECONDS)

    async def until_next_chunk(self, job_id: str) -> None:
        """Wait until another chunk of the job has come, or its end."""
        job = self.emulator.jobs[job_id]
        posts = job.chunk_posts
        await until(lambda: job.chunk_posts > posts or job.status not in _OPEN, READY_SECONDS)

    async def until_well(self) -> None:
        """Wait until a job is COMPLETED again."""
        status = ""
        while status != "COMPLETED":
            job = await self.run("/generate", prompt="Hello", max_new_tokens=1)
            status = (await self.result(job, 120))["status"]

    def strike(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Send a signal to processes: the accident."""
        self.struck = asyncio.get_running_loop().time()
        send(pids, number)

    def workers(self) -> list[int]:
        """Process ids of the workers and of what pings for them, oldest first."""
        return [pid for pid in family(os.getpid()) if b"handler.py" in _command(pid)]

    def engine(self) -> int | None:
        """Process id of the only worker's engine, None while there is none."""
        return next((pid for pid in family(os.getpid()) if is_engine(pid)), None)

    async def until_engine(self) -> int:
        """Wait for an engine's process; its id."""
        await until(lambda: self.engine() is not None, READY_SECONDS)
        found = self.engine()
        assert found is not None  # noqa: S101 - waited for
        return found


@asynccontextmanager
async def running_stage(
    *,
    workers: int = 1,
    stand_in: bool = False,
    settings: Mapping[str, str] | None = None,
    log: str = "",
) -> AsyncIterator[Stage]:
    """Run an emulator with workers.

    stand_in: on an engine that answers at once, without a model; settings: of the workers; log: the
    file that all they print goes to.
    """
    weather = Weather()
    variables = {"LOG_LEVEL": "error", "WORKER_GRACE_PERIOD": "5", **(settings or {})}
    if stand_in:
        variables["PYTHONPATH"] = str(STAND_IN)
    command = ["env", *(f"{name}={value}" for name, value in variables.items())]
    if log:
        command += ["sh", "-c", f'exec "$@" >{shlex.quote(log)} 2>&1', "sh"]
    fleet = FleetOptions(
        command=[*command, sys.executable, "handler.py"],
        folder=ROOT,
        count=workers,
        pause=0.1,
        longest_pause=0.2,
    )
    async with (
        running_emulator(faults=weather, observer=weather.observe, fleet=fleet) as emulator,
        aiohttp.ClientSession() as http,
    ):
        yield Stage(emulator, http, weather)


async def until(true: Any, seconds: float) -> None:
    """Wait until it holds of something that tells nobody; asyncio.TimeoutError if it never does."""

    async def look() -> None:
        while not true():  # noqa: ASYNC110 - processes and the emulator set no asyncio.Event
            await asyncio.sleep(_POLL_SECONDS)

    await asyncio.wait_for(look(), seconds)


def family(pid: int) -> list[int]:
    """A process's descendants, oldest first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    found = {pid}
    for child in sorted(parents):
        ancestor: int | None = child
        line = []
        while ancestor is not None and ancestor not in found:
            line.append(ancestor)
            ancestor = parents.get(ancestor)
        if ancestor is not None:
            found.update(line)
    return sorted(found - {pid})


def is_engine(pid: int) -> bool:
    """Whether a process is an embedded engine, and no longer its launcher."""
    command = _command(pid)
    return b"worker.engines.llama_child" in command and b"launcher.py" not in command


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes, as far as they are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
