"""How fast the worker lets go: a cancelled job's slot, a dead engine's job, its own end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from benchmarks.jobs import EmulatorPlatform
from benchmarks.machine import children, command
from benchmarks.measure import Row, Sample, interleaved
from benchmarks.options import Options
from benchmarks.starts import FIRST_JOB
from benchmarks.stub import running_stub
from benchmarks.workers import ours, stock, worker_process
from emulator.faults import Faults
from emulator.fleet import free_port
from emulator.server import Emulator, running_emulator

_LOOK_SECONDS = 0.003
_LIMIT_SECONDS = 60.0
_LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}
_LONG_PROMPT = "one two three four " * 60


@dataclass(frozen=True, slots=True)
class Running:
    """The real worker with the embedded engine, ready."""

    emulator: Emulator
    platform: EmulatorPlatform
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    engine_port: int

    def submit(self, payload: Mapping[str, Any], **more: Any) -> str:
        """Queue a generation."""
        api = {"method": "POST", "endpoint": "/generate"}
        return self.platform.submit({"api": api, "payload": {**payload, **more}})

    async def busy(self) -> int:
        """How many slots the engine works on."""
        url = f"http://127.0.0.1:{self.engine_port}/slots"
        async with self.session.get(url) as response:
            return sum(slot["is_processing"] for slot in await response.json())

    async def until_busy(self, count: int) -> float:
        """Wait until so many slots work; the seconds it took."""
        started = time.monotonic()
        while await self.busy() != count:
            if time.monotonic() - started > _LIMIT_SECONDS:
                raise TimeoutError(f"not {count} slots are busy after {_LIMIT_SECONDS:g} s")
            await asyncio.sleep(_LOOK_SECONDS)
        return time.monotonic() - started

    def engine_pid(self) -> int:
        """The engine's process."""
        return next(pid for pid in children(self.process.pid) if "llama_child" in command(pid))


@asynccontextmanager
async def running_worker(**delays: float) -> AsyncIterator[Running]:
    """Start the real worker on four slots, and wait until it has answered a job."""
    port = free_port()
    faults = Faults(delays={name.replace("_", "-"): delay for name, delay in delays.items()})
    async with running_emulator(faults=faults) as emulator, aiohttp.ClientSession() as session:
        variables = {
            **emulator.worker_environment("worker"),
            "ENGINE_PORT": str(port),
            "ENGINE_SLOTS": "4",
        }
        async with worker_process(["handler.py"], variables) as process:
            platform = EmulatorPlatform(emulator)
            await platform.result(platform.submit(FIRST_JOB))
            yield Running(emulator, platform, process, session, port)


async def lifecycle(options: Options) -> list[Row]:
    """All rows about letting go."""
    rounds = options.rounds if options.slow else 1
    async with running_worker(job_stream=0.3) as worker:
        situations: dict[str, Sample] = {
            "plain": partial(_cancel, worker, 0),
            "plain, beside another": partial(_cancel, worker, 1),
            "stream, a chunk being posted": partial(_cancel, worker, 0, stream=True),
            "while the prompt is read": partial(_cancel, worker, 0, prompt=_LONG_PROMPT),
        }
        cancelled = await interleaved(situations, rounds=rounds, warm_up=0)
    rows = [Row("cancel to slot free", "s", cancelled, "plain", "0.1 s")]
    dead = await interleaved({"ours": _dead_engine}, rounds=min(3, rounds), warm_up=0)
    rows.append(Row("engine killed to job FAILED", "s", dead, "ours", "0.5 s"))
    async with running_stub() as (port, _):
        ends: dict[str, Sample] = {"ours": partial(end_of, ours(port, slots=1))}
        if options.slow:
            ends["stock SDK, empty handler"] = partial(end_of, stock(slots=1))
        ended = await interleaved(ends, rounds=min(2, rounds), warm_up=0)
    rows.append(Row("SIGTERM of an idle worker to its end", "s", ended, "ours", "1.2 s"))
    return rows


async def _cancel(worker: Running, others: int, *, stream: bool = False, **payload: Any) -> float:
    """Seconds from a cancellation to the moment when the engine's slot is free."""
    beside = [worker.submit(_LONG) for _ in range(others)]
    await worker.until_busy(others)
    job_id = worker.submit(_LONG, stream=stream, **payload)
    await worker.until_busy(others + 1)
    job = worker.emulator.endpoint.job(job_id)
    if stream:
        while not job.chunk_posts:  # noqa: ASYNC110 - the worker's doing, seen from inside
            await asyncio.sleep(_LOOK_SECONDS)
    worker.emulator.endpoint.cancel(job)
    seconds = await worker.until_busy(others)
    for other in beside:
        worker.emulator.endpoint.cancel(worker.emulator.endpoint.job(other))
    await worker.until_busy(0)
    return seconds


async def _dead_engine() -> float:
    """Seconds from the engine's SIGKILL to the FAILED of the job that it worked on."""
    async with running_worker() as worker:
        job_id = worker.submit(_LONG)
        await worker.until_busy(1)
        started = time.monotonic()
        os.kill(worker.engine_pid(), signal.SIGKILL)
        result = await worker.platform.result(job_id)
        if "error" not in result:
            raise RuntimeError("the job of a dead engine did not fail")
        return time.monotonic() - started


async def end_of(worker: list[str]) -> float:
    """Seconds from the SIGTERM of an idle worker to its end; its polls are held for 25 s."""
    async with (
        running_emulator() as emulator,
        worker_process(worker, emulator.worker_environment("worker")) as process,
    ):
        platform = EmulatorPlatform(emulator)
        await platform.result(platform.submit(FIRST_JOB))
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await process.wait()
        return time.monotonic() - started
