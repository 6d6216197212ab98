"""The worker around a started engine: wait until it is ready, run jobs, end in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from worker import runpod_loop
from worker.client import EngineClient
from worker.engines.engine import Engine
from worker.errors import EngineStartFailed
from worker.joblog import logger
from worker.local_run import print_outcome, run_local
from worker.output import failed
from worker.runner import Runner
from worker.runpod_sdk import Sdk, load_sdk
from worker.settings import Settings
from worker.slots import Slots
from worker.stock_loop import serve_stock
from worker.watched import Watched


def run_one(settings: Settings, engine: Engine, job: Mapping[str, Any], *, queued_at: float) -> int:
    """Run one local job and return the exit code; a signal ends it with 128 + its number."""
    return asyncio.run(_until_signal(_run_one(settings, engine, job, queued_at)))


async def _run_one(
    settings: Settings, engine: Engine, job: Mapping[str, Any], queued_at: float
) -> int:
    async with _client(settings, engine) as client:
        try:
            await _ready(engine, client)
        except EngineStartFailed as error:
            return print_outcome(job, failed(error), queued_at=queued_at)
        return await run_local(make_runner(settings, engine, client), job, queued_at=queued_at)


def serve(settings: Settings, engine: Engine) -> int:
    """Serve RunPod until the worker is told to end (0) or the engine is lost (1)."""
    # The SDK takes half a second to import, while the engine is starting.
    sdk = load_sdk()
    return asyncio.run(_serve(settings, engine, sdk))


async def _serve(settings: Settings, engine: Engine, sdk: Sdk) -> int:
    async with _client(settings, engine) as client:
        ready, lost = asyncio.Event(), asyncio.Event()
        watching = asyncio.ensure_future(_watch(engine, client, ready, lost))
        serve_jobs = runpod_loop.serve if settings.worker_loop == "event" else serve_stock
        try:
            return await serve_jobs(
                make_runner(settings, engine, client),
                sdk=sdk,
                capacity=settings.engine_slots + settings.worker_extra_jobs,
                grace_period=settings.worker_grace_period,
                gate=ready,
                fatal=lost,
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _watch(
    engine: Engine, client: EngineClient, ready: asyncio.Event, lost: asyncio.Event
) -> None:
    """Open `ready` when the engine is; open `lost` when it did not start, or has died."""
    try:
        await _ready(engine, client)
        ready.set()
        logger.error(
            "%s; the worker ends so that the platform replaces it", await engine.wait_died()
        )
    except EngineStartFailed as error:
        logger.error("the engine did not start: %s", error)
    finally:
        lost.set()


def make_runner(settings: Settings, engine: Engine, client: EngineClient) -> Runner:
    """Put together what runs a job on this engine."""
    answerer = Watched(engine.answerer(client, Slots(settings.engine_slots)), engine)
    return Runner(answerer, job_timeout=settings.job_timeout)


@asynccontextmanager
async def _client(settings: Settings, engine: Engine) -> AsyncIterator[EngineClient]:
    """The session to the engine; at the end the engine is stopped and the session closed."""
    client = EngineClient(settings.engine_port)
    try:
        yield client
    finally:
        await engine.stop(0)
        await client.close()


async def _ready(engine: Engine, client: EngineClient) -> None:
    """Wait until the engine is ready and log where the time went."""
    phases = await engine.wait_ready(client.session)
    seconds = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items())
    logger.info("engine ready with %s: %s", engine.model_name, seconds)


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
