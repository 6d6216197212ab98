"""Accidents, one function each: it makes one happen and tells what the user of a job saw."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.stage import READY_SECONDS, Stage, family, is_engine, running_stage, send, until

LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}
MIDDLE = {"prompt": "Once upon a time", "max_new_tokens": 200, "ban_eos_token": True}
SHORT = {"prompt": "Once upon a time", "max_new_tokens": 10, "ban_eos_token": True}
OPERATIONS = ("job-take-batch", "job-stop", "job-stream", "job-done", "ping")
# A worker with one place asks for one job at a time, by another URL.
OPERATIONS_OF_ONE = ("job-take",)
ONE_PLACE = {"ENGINE_SLOTS": "1", "WORKER_EXTRA_JOBS": "0"}
FAULTS: tuple[int | str, ...] = (400, 401, 403, 404, 429, 500, 502, 503, "reset", "silence")
WELL_SECONDS = 120.0
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Accident:
    """name: for the table; happen: does it on a stage and tells what was seen.

    settings, stand_in, log: of the stage; well_before: whether it happens to a worker that is well.
    """

    name: str
    happen: Callable[[Stage], Awaitable[str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    stand_in: bool = False
    log: str = ""
    well_before: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the table.

    answer, well: seconds from the accident to the job's answer, and to the next COMPLETED job.
    """

    case: str
    saw: str
    answer: float | None = None
    well: float | None = None


async def watch(accident: Accident) -> Seen:
    """Let an accident happen to a worker that was well before, and wait until it is well again."""
    async with running_stage(
        settings=accident.settings, stand_in=accident.stand_in, log=accident.log
    ) as stage:
        if accident.well_before:
            await stage.until_well()
        return await _on(stage, accident)


async def watch_weather(
    operations: Sequence[str] = OPERATIONS, settings: Mapping[str, str] | None = None
) -> list[Seen]:
    """Every fault on each of these URLs, one after the other on the same worker."""
    async with running_stage(settings=settings) as stage:
        await stage.until_well()
        return [
            await _on(stage, Accident(f"{operation}: {fault} twice", _storm(operation, fault)))
            for operation in operations
            for fault in FAULTS
        ]


async def _on(stage: Stage, accident: Accident) -> Seen:
    loop = asyncio.get_running_loop()
    stage.struck = loop.time()
    try:
        saw = await accident.happen(stage)
        answered = loop.time()
        await asyncio.wait_for(stage.until_well(), WELL_SECONDS)
    except asyncio.TimeoutError:
        return Seen(accident.name, "WAITED FOR EVER")
    return Seen(accident.name, saw, answered - stage.struck, loop.time() - stage.struck)


def accidents(freeze: float) -> list[Accident]:
    """All of them; freeze: seconds that a worker is frozen."""
    return [
        Accident("engine SIGKILL, before ready", _engine_before_ready, well_before=False),
        Accident("engine SIGKILL, idle", _engine_idle(signal.SIGKILL)),
        Accident("engine SIGKILL, mid-generation", _engine_busy(signal.SIGKILL, stream=False)),
        Accident("engine SIGKILL, mid-stream", _engine_busy(signal.SIGKILL, stream=True)),
        Accident("engine SIGSEGV, mid-generation", _engine_busy(signal.SIGSEGV, stream=False)),
        Accident("engine SIGSTOP, idle, no job comes", _engine_hangs),
        Accident("engine SIGSTOP, idle", _engine_idle(signal.SIGSTOP)),
        Accident("engine SIGSTOP, mid-generation", _engine_busy(signal.SIGSTOP, stream=False)),
        Accident("engine SIGKILL, no restart left", _engine_lost, {"ENGINE_RESTARTS": "0"}),
        Accident("worker SIGKILL, mid-generation", _worker_killed),
        Accident("worker SIGTERM, mid-generation", _worker_ended),
        Accident(f"worker and engine frozen {freeze:g} s, idle", _frozen(freeze, busy=False)),
        Accident(f"worker and engine frozen {freeze:g} s, busy", _frozen(freeze, busy=True)),
        Accident("a job delivered twice", _twice),
        Accident("result POST refused for 20 s", _refused),
        Accident("stop signal for an unknown job", _stop_unknown),
        Accident("a chat of 9 MB", _huge),
    ]


async def seen(stage: Stage, job: str) -> str:
    """What a client reads of a job."""
    answer = await stage.result(job)
    error = answer.get("error")
    text = json.dumps(answer.get("output")) if error is None else str(error)
    return f"{answer['status']}: {text}"[:_WIDTH]


async def _engine_before_ready(stage: Stage) -> str:
    job = await stage.run("/generate", **SHORT)
    stage.strike([await stage.until_engine()], signal.SIGKILL)
    return await seen(stage, job)


def _engine_idle(number: signal.Signals) -> Callable[[Stage], Awaitable[str]]:
    async def happen(stage: Stage) -> str:
        engine = await stage.until_engine()
        stage.strike([engine], number)
        return await seen(stage, await stage.run("/generate", **SHORT))

    return happen


async def _engine_hangs(stage: Stage) -> str:
    engine = await stage.until_engine()
    stage.strike([engine], signal.SIGSTOP)
    await until(lambda: not is_engine(engine), READY_SECONDS)
    return "nothing: the engine was killed before a job came"


def _engine_busy(number: signal.Signals, *, stream: bool) -> Callable[[Stage], Awaitable[str]]:
    async def happen(stage: Stage) -> str:
        job = await _streaming(stage) if stream else await _generating(stage)
        stage.strike([await stage.until_engine()], number)
        return await seen(stage, job)

    return happen


async def _streaming(stage: Stage, payload: Mapping[str, Any] = LONG) -> str:
    job = await stage.run("/generate", stream=True, **payload)
    await stage.until_streaming(job)
    return job


async def _generating(stage: Stage, **more: Any) -> str:
    """A job without a stream beside one with: when that has a chunk, both generate."""
    job = await stage.run("/generate", **LONG, **more)
    await stage.until_taken(job)
    await _streaming(stage)
    return job


async def _engine_lost(stage: Stage) -> str:
    job = await _generating(stage)
    stage.strike([await stage.until_engine()], signal.SIGKILL)
    return await seen(stage, job)


async def _worker_killed(stage: Stage) -> str:
    job = await stage.run("/generate", **MIDDLE)
    await stage.until_taken(job)
    stage.strike(stage.workers(), signal.SIGKILL)
    return await seen(stage, job)


async def _worker_ended(stage: Stage) -> str:
    job = await _generating(stage)
    stage.strike(stage.workers(), signal.SIGTERM)
    return await seen(stage, job)


def _frozen(seconds: float, *, busy: bool) -> Callable[[Stage], Awaitable[str]]:
    async def happen(stage: Stage) -> str:
        job = await stage.run("/generate", **(MIDDLE if busy else SHORT), stream=True)
        if busy:
            await stage.until_streaming(job)
        else:
            await stage.result(job)
        processes = family(os.getpid())
        stage.strike(processes, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        send(processes, signal.SIGCONT)
        after = job if busy else await stage.run("/generate", **SHORT)
        return await seen(stage, after)

    return happen


async def _twice(stage: Stage) -> str:
    job = await _streaming(stage, MIDDLE)
    endpoint = stage.emulator.endpoint
    (worker,) = endpoint.roster.all()
    endpoint.give_back([stage.emulator.jobs[job]], worker)
    return await seen(stage, job)


async def _refused(stage: Stage) -> str:
    stage.weather.next("job-done", 400, 1000)
    asyncio.get_running_loop().call_later(20, stage.weather.next, "job-done", 400, 0)
    return await seen(stage, await stage.run("/generate", **SHORT))


async def _stop_unknown(stage: Stage) -> str:
    (worker,) = stage.emulator.endpoint.roster.all()
    worker.stops.append("nobodys-job")
    worker.changed()
    await until(lambda: not worker.stops, 10)
    return await seen(stage, await stage.run("/generate", **SHORT))


async def _huge(stage: Stage) -> str:
    history = {"internal": [["x" * 9_000_000, "y"]], "visible": [["x", "y"]]}
    return await seen(
        stage, await stage.run("/chat", user_input="Hello", history=history, max_new_tokens=1)
    )


def _storm(operation: str, fault: int | str) -> Callable[[Stage], Awaitable[str]]:
    async def happen(stage: Stage) -> str:
        stage.weather.next(operation, fault, 2)
        job = await stage.run("/generate", stream=True, **SHORT)
        saw = await seen(stage, job)
        stage.weather.next(operation, fault, 0)
        return saw

    return happen
