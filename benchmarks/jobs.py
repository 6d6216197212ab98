"""Jobs a second and the time of one job, through the platform's protocol."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

from benchmarks.fast_platform import FastPlatform
from benchmarks.measure import Row, Sample, interleaved, summarize
from benchmarks.options import Options
from benchmarks.sides import MESSAGES
from benchmarks.stub import STREAMED, running_stub
from benchmarks.workers import ours, stock, worker_process
from emulator.faults import Faults
from emulator.server import Emulator, running_emulator
from emulator.submission import Submission, default_policy
from emulator.waiting import until

_NO_OP_REACH = {1: "800 jobs/s", 50: "2500 jobs/s"}
EVENT, OUR_STOCK, STOCK = "ours", "ours, WORKER_LOOP=stock", "stock SDK, empty handler"


class Platform(Protocol):
    """Where jobs are queued and answered."""

    def submit(self, job_input: Mapping[str, Any], *, hand_over: bool = True) -> str:
        """Queue a job."""
        ...

    async def result(self, job_id: str) -> Any:
        """Wait for a job's end."""
        ...

    def variables(self) -> dict[str, str]:
        """A worker's environment."""
        ...


class EmulatorPlatform:
    """The emulator, used from inside, so that the client's side costs nothing."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._endpoint = emulator.endpoint

    def submit(self, job_input: Mapping[str, Any], *, hand_over: bool = True) -> str:
        """Queue a job."""
        policy = default_policy(self._endpoint.limits)
        job = self._endpoint.submit(Submission({"input": dict(job_input)}, policy), sync=False)
        return job.id

    async def result(self, job_id: str) -> Any:
        """Wait for a job's end."""
        job = self._endpoint.job(job_id)
        await until(job, lambda: job.over, 60)
        return job.result

    def variables(self) -> dict[str, str]:
        """A worker's environment."""
        return self._emulator.worker_environment("worker")


def generation(tokens: int = 1, delay: float = 0.0, **more: Any) -> dict[str, Any]:
    """A job's input: a completion that the stub answers after `delay` seconds."""
    body = {"messages": MESSAGES, "max_tokens": tokens, "delay": delay, **more}
    return {"api": {"method": "POST", "endpoint": STREAMED}, "payload": body}


async def backlog(platform: Platform, count: int, seconds: float) -> float:
    """Jobs a second of a backlog, from when all are queued to the last result."""
    ids = [platform.submit(generation(delay=seconds), hand_over=False) for _ in range(count - 1)]
    ids.append(platform.submit(generation(delay=seconds)))
    started = time.perf_counter()
    for job_id in ids:
        await platform.result(job_id)
    return count / (time.perf_counter() - started)


async def one_by_one(platform: Platform, count: int) -> float:
    """Milliseconds of one job after another, the median."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await platform.result(platform.submit(generation()))
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


@asynccontextmanager
async def _emulator_platform() -> AsyncIterator[EmulatorPlatform]:
    async with running_emulator() as emulator:
        yield EmulatorPlatform(emulator)


@asynccontextmanager
async def _fast_platform() -> AsyncIterator[FastPlatform]:
    async with FastPlatform().serving() as platform:
        yield platform


_PLATFORMS: Mapping[str, Callable[[], Any]] = {
    "emulator": _emulator_platform,
    "raw platform": _fast_platform,
}


async def _on_worker(
    open_platform: Callable[[], Any], command: list[str], measure: Callable[[Any], Any]
) -> float:
    """Measure on a worker of its own, warmed up by one job."""
    async with open_platform() as platform, worker_process(command, platform.variables()):
        await platform.result(platform.submit(generation()))
        figure: float = await measure(platform)
        return figure


async def jobs(options: Options) -> list[Row]:
    """All rows about the job loop."""
    rows = []
    async with running_stub() as (port, _):
        for slots in (1, 8, 50) if options.slow else (8,):
            rows += await _throughput(port, slots, options)
            rows.append(await _latency(port, slots, options))
        rows += await _chunks(port, options)
    return rows


def _commands(port: int, slots: int) -> dict[str, list[str]]:
    return {
        EVENT: ours(port, slots=slots),
        OUR_STOCK: ours(port, slots=slots, loop="stock"),
        STOCK: stock(slots=slots),
    }


async def _throughput(port: int, slots: int, options: Options) -> list[Row]:
    rounds = max(1, options.rounds // 2)
    rows = []
    for kind, open_platform in _PLATFORMS.items():
        for seconds in (0.0, 0.1, 1.0) if kind == "emulator" else (0.0,):
            if seconds == 1.0 and not options.slow:
                continue
            samples: dict[str, Sample] = {}
            for name, command in _commands(port, slots).items():
                count = _count(name, slots, seconds, options)
                measure = partial(backlog, count=count, seconds=seconds)
                samples[name] = partial(_on_worker, open_platform, command, measure)
            figures = await interleaved(samples, rounds=rounds, warm_up=0)
            rows.append(
                Row(
                    f"backlog of {1e3 * seconds:g} ms jobs, {slots} slots, {kind}",
                    "jobs/s",
                    figures,
                    STOCK,
                    f"{0.95 * slots / seconds:g} jobs/s"
                    if seconds
                    else _NO_OP_REACH.get(slots, ""),
                    lower_is_better=False,
                )
            )
    return rows


def _count(name: str, slots: int, seconds: float, options: Options) -> int:
    """So many jobs that a round takes a few seconds."""
    if name != EVENT:
        return 3 * slots if options.slow else 2 * slots
    if seconds:
        return int(slots * max(2, 2 / seconds)) if options.calls > 50 else slots
    return 10 * options.calls


async def _latency(port: int, slots: int, options: Options) -> Row:
    samples: dict[str, Sample] = {}
    for name, command in _commands(port, slots).items():
        measure = partial(one_by_one, count=options.calls if name == EVENT else 4)
        samples[name] = partial(_on_worker, _fast_platform, command, measure)
    figures = await interleaved(samples, rounds=max(1, options.rounds // 2), warm_up=0)
    what = f"one job after another, submit to result, {slots} slots, raw platform"
    return Row(what, "ms", figures, STOCK, "2 ms")


async def _chunks(port: int, options: Options) -> list[Row]:
    """200 tokens at 100 a second while each chunk's POST takes 50 ms."""
    posts: list[float] = []
    first: list[float] = []

    async def sample() -> float:
        async with (
            running_emulator(faults=Faults(delays={"job-stream": 0.05})) as emulator,
            worker_process(ours(port, slots=1), emulator.worker_environment("worker")),
        ):
            platform = EmulatorPlatform(emulator)
            await platform.result(platform.submit(generation()))
            started = time.perf_counter()
            job_id = platform.submit(generation(200, gap=0.01, stream=True))
            job = emulator.endpoint.job(job_id)
            await until(job, lambda: bool(job.chunk_posts), 20)
            first.append((time.perf_counter() - started) * 1e3)
            await platform.result(job_id)
            posts.append(job.chunk_posts)
            return time.perf_counter() - started

    figures = await interleaved({EVENT: sample}, rounds=max(1, options.rounds // 2), warm_up=0)
    what = "200 tokens at 100 a second, 50 ms a chunk's POST"
    return [
        Row(what, "s", figures, EVENT, "2.1 s; token by token: 10.1 s"),
        Row(f"{what}: POSTs", "POSTs", {EVENT: summarize(posts)}, EVENT, "token by token: 200"),
        Row(f"{what}: first chunk", "ms", {EVENT: summarize(first)}, EVENT, "not delayed"),
    ]
