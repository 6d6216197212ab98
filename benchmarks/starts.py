"""Cold starts: a process to its first job taken, a container to its first job answered."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial

import aiohttp

from benchmarks.fast_platform import FastPlatform
from benchmarks.measure import Row, Sample, interleaved
from benchmarks.options import Options
from benchmarks.stub import running_stub
from benchmarks.workers import ours, stock, worker_process
from emulator.fleet import free_port
from worker.engines.choose import make_engine
from worker.settings import Settings

OURS, STOCK = "ours", "stock SDK, empty handler"
ENGINE, CONTAINER = "the engine alone", "start.sh, first job answered"
# A checkout of today's text-generation-webui, as the tests of it know one too.
CHECKOUT = {
    "WEBUI_DIR": "WEBUI_CURRENT_DIR",
    "WEBUI_PYTHON": "WEBUI_CURRENT_PYTHON",
    "MODEL": "WEBUI_CURRENT_MODEL",
}
FIRST_JOB = {
    "api": {"method": "POST", "endpoint": "/generate"},
    "payload": {"prompt": "1", "max_new_tokens": 1},
}


async def starts(options: Options) -> list[Row]:
    """All rows about starts."""
    rounds = max(1, options.rounds)
    async with running_stub() as (port, _):
        taken: dict[str, Sample] = {
            OURS: partial(first_take, ours(port, slots=1)),
            STOCK: partial(first_take, stock(slots=1)),
        }
        process = await interleaved(taken, rounds=rounds)
    rows = [
        Row(
            "process start to first job asked for, engine ready already",
            "s",
            process,
            STOCK,
            "at most 0.3 x stock",
        ),
        await _container("embedded engine", {"ENGINE": "embedded"}, rounds),
    ]
    if options.slow and all(os.environ.get(name) for name in CHECKOUT.values()):
        webui = {setting: os.environ[name] for setting, name in CHECKOUT.items()}
        rows.append(await _container("text-generation-webui v4.9, llama.cpp", webui, rounds))
    return rows


async def _container(engine: str, variables: Mapping[str, str], rounds: int) -> Row:
    """A container's start beside that of its engine alone."""
    sides: dict[str, Sample] = {
        ENGINE: partial(_engine_alone, variables),
        CONTAINER: partial(_first_answer, variables),
    }
    return Row(
        f"container start to first job answered, {engine}",
        "s",
        await interleaved(sides, rounds=rounds),
        ENGINE,
        "the engine alone + 0.15 s",
        note="the engine alone: spawn to a generated token, by a process that has imported all",
    )


async def first_take(command: list[str]) -> float:
    """Seconds from the start of a worker to its first job-take."""
    async with FastPlatform().serving() as platform:
        started = time.monotonic()
        async with worker_process(command, platform.variables()):
            return await platform.taken() - started


async def _first_answer(settings: Mapping[str, str]) -> float:
    """Seconds from the start of the real worker to the answer of a job that waited for it."""
    async with FastPlatform().serving() as platform:
        job_id = platform.submit(FIRST_JOB)
        variables = {
            **platform.variables(),
            **settings,
            "ENGINE_PORT": str(free_port()),
            "WORKER_PYTHON": sys.executable,
        }
        started = time.monotonic()
        async with worker_process([], variables, program="./start.sh"):
            result = await platform.result(job_id)
            seconds = time.monotonic() - started
    if "error" in result:
        raise RuntimeError(result["error"])
    return seconds


async def _engine_alone(settings: Mapping[str, str]) -> float:
    """Seconds from the engine's spawn to its first token."""
    environ = {**os.environ, **settings, "ENGINE_PORT": str(free_port())}
    lines: list[str] = []
    engine = make_engine(Settings.from_env(environ), environ, lines.append)
    started = time.monotonic()
    engine.spawn()
    try:
        async with aiohttp.ClientSession() as session:
            await engine.wait_ready(session)
            return time.monotonic() - started
    finally:
        engine.kill()
