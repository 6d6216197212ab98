"""The worker around a started engine: wait until it is ready, run jobs, end in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from worker import runpod_loop
from worker.client import EngineClient
from worker.cold_start import ColdStart, importing
from worker.engines.engine import Engine
from worker.errors import EngineStartFailed
from worker.local_run import print_outcome, run_local
from worker.memory import give_back_large_blocks
from worker.output import failed
from worker.runner import Runner
from worker.runpod_sdk import Sdk, load_sdk
from worker.serving import first_of
from worker.settings import Settings
from worker.slots import Slots
from worker.stock_loop import serve_stock
from worker.supervisor import Supervisor
from worker.watched import Watched


def run_one(
    settings: Settings, engine: Engine, job: Mapping[str, Any], cold_start: ColdStart
) -> int:
    """Run one local job and return the exit code; a signal ends it with 128 + its number."""
    return asyncio.run(_until_signal(_run_one(settings, engine, job, cold_start)))


async def _run_one(
    settings: Settings, engine: Engine, job: Mapping[str, Any], cold_start: ColdStart
) -> int:
    async with _client(settings, engine) as client:
        supervisor = make_supervisor(settings, engine, client)
        async with _running(supervisor.run()):
            gate = _FirstPass(supervisor, cold_start)
            await first_of(gate.wait(), supervisor.lost.wait())
            if supervisor.lost.is_set():
                error = EngineStartFailed(supervisor.cause or "the engine did not start")
                return print_outcome(job, failed(error), queued_at=cold_start.began)
            runner = make_runner(settings, engine, client, supervisor)
            return await run_local(runner, job, queued_at=cold_start.began)


def serve(settings: Settings, engine: Engine, cold_start: ColdStart) -> int:
    """Serve RunPod until the worker is told to end (0) or the engine is lost (1)."""
    with importing():
        sdk = load_sdk()
    cold_start.mark("SDK import")
    give_back_large_blocks()
    return asyncio.run(_serve(settings, engine, sdk, cold_start))


async def _serve(settings: Settings, engine: Engine, sdk: Sdk, cold_start: ColdStart) -> int:
    serve_jobs = runpod_loop.serve if settings.worker_loop == "event" else serve_stock
    async with _client(settings, engine) as client:
        supervisor = make_supervisor(settings, engine, client)
        async with _running(supervisor.run()):
            return await serve_jobs(
                make_runner(settings, engine, client, supervisor),
                sdk=sdk,
                capacity=engine.slots + settings.worker_extra_jobs,
                grace_period=settings.worker_grace_period,
                gate=_FirstPass(supervisor, cold_start),
                fatal=supervisor.lost,
            )


class _FirstPass:
    """The supervisor's `ready` for a job loop: whoever passes it first ends the cold start."""

    def __init__(self, supervisor: Supervisor, cold_start: ColdStart) -> None:
        self._supervisor = supervisor
        self._cold_start: ColdStart | None = cold_start

    async def wait(self) -> None:
        """Wait until the engine is ready; the first time log where the time of the start went."""
        cold_start, self._cold_start = self._cold_start, None
        if cold_start is None:
            await self._supervisor.ready.wait()
            return
        cold_start.mark("checks and heartbeat")
        await self._supervisor.ready.wait()
        cold_start.mark("waiting for the engine")
        cold_start.report(self._supervisor.phases)


def make_runner(
    settings: Settings, engine: Engine, client: EngineClient, supervisor: Supervisor
) -> Runner:
    """Put together what runs a job on this engine."""
    answerer = Watched(engine.answerer(client, supervisor.slots), engine, supervisor)
    return Runner(answerer, job_timeout=settings.job_timeout)


def make_supervisor(settings: Settings, engine: Engine, client: EngineClient) -> Supervisor:
    """The engine's supervisor, not running yet."""
    return Supervisor(
        engine,
        client,
        Slots(engine.slots),
        restarts=settings.engine_restarts,
        probe_seconds=settings.engine_probe_timeout,
    )


@asynccontextmanager
async def _client(settings: Settings, engine: Engine) -> AsyncIterator[EngineClient]:
    """The session to the engine; at the end the engine is stopped and the session closed."""
    client = EngineClient(settings.engine_port)
    try:
        yield client
    finally:
        await engine.stop(0)
        await client.close()


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do some work beside the block; it is ended with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until_signal(work: Awaitable[int]) -> int:
    """Do the work; SIGINT and SIGTERM cancel it, and all that it started is ended."""
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def cancel(number: int) -> None:
        received.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel, number)
    try:
        return await task
    except asyncio.CancelledError:
        return 128 + received[0]
