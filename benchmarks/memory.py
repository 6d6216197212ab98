"""What the worker keeps and copies: idle, after many jobs, and for each MB in and out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.fast_platform import FastPlatform
from benchmarks.jobs import generation
from benchmarks.machine import children, cpu_seconds, forget_peak, memory_mb, peak_mb, resident_mb
from benchmarks.measure import Row, Summary, summarize
from benchmarks.options import Options
from benchmarks.stub import PLAIN, running_stub
from benchmarks.workers import ours, stock, worker_process

OURS, STOCK = "ours", "stock SDK, empty handler"


@asynccontextmanager
async def _worker(
    worker: list[str],
) -> AsyncIterator[tuple[FastPlatform, asyncio.subprocess.Process]]:
    """A worker that has answered a job."""
    async with (
        FastPlatform().serving() as platform,
        worker_process(worker, platform.variables()) as process,
    ):
        await platform.result(platform.submit(generation()))
        yield platform, process


async def memory(options: Options) -> list[Row]:
    """All rows about memory."""
    async with running_stub() as (port, _):
        commands = {OURS: ours(port, slots=4), STOCK: stock(slots=4)}
        idle = {name: await _idle(command) for name, command in commands.items()}
        rows = [
            Row(
                "memory of the idle worker and its children (PSS)",
                "MB",
                idle,
                STOCK,
                "no more than the bare SDK worker",
            )
        ]
        async with _worker(ours(port, slots=1)) as (platform, process):
            rows += await _growth(platform, process.pid, options)
        for kind in ("input", "output"):
            sizes = (1, 5, 19) if options.slow else (5,)
            rows += await _megabytes(port, kind, sizes, options)
    return rows


async def _idle(command: list[str]) -> Summary:
    async with _worker(command) as (_, process):
        pids = [process.pid, *children(process.pid)]
        return summarize([sum(memory_mb(pid) for pid in pids)])


async def _growth(platform: FastPlatform, pid: int, options: Options) -> list[Row]:
    """Resident size after each of five batches of jobs, and what each took of the processor."""
    count = 1_000 if options.slow else 20
    sizes = {"after 0 jobs": summarize([resident_mb(pid)])}
    seconds = {}
    for batch in range(1, 6):
        used = cpu_seconds(pid)
        for job in [platform.submit(generation()) for _ in range(count)]:
            await platform.result(job)
        sizes[f"after {batch * count} jobs"] = summarize([resident_mb(pid)])
        seconds[f"batch {batch}"] = summarize([(cpu_seconds(pid) - used) / count * 1e3])
    return [
        Row("resident size of the worker", "MB", sizes, f"after {count} jobs", "flat"),
        Row(f"worker's CPU a job, batches of {count}", "ms", seconds, "batch 1", "flat"),
    ]


async def _megabytes(port: int, kind: str, sizes: tuple[int, ...], options: Options) -> list[Row]:
    """Added peak and the worker's processor time for one job with so many MB, on a new worker."""
    peaks, seconds = {}, {}
    for size in sizes:
        samples = []
        for _ in range(min(3, options.rounds)):
            async with _worker(ours(port, slots=1)) as (platform, process):
                samples.append(await large(platform, process.pid, kind, size * 1_000_000))
        peaks[f"{size} MB"] = summarize([peak / size for peak, _ in samples])
        seconds[f"{size} MB"] = summarize([cpu / size * 1e3 for _, cpu in samples])
    base = f"{sizes[-1]} MB"
    return [
        Row(f"peak memory for each MB of {kind}", "MB", peaks, base, "linear, at most 3 copies"),
        Row(f"worker's CPU for each MB of {kind}", "ms", seconds, base, "linear"),
    ]


async def large(platform: FastPlatform, pid: int, kind: str, size: int) -> tuple[float, float]:
    """One job with `size` bytes in or out: MB over the size before, processor seconds."""
    payload = {"prompt": "x" * size} if kind == "input" else {"bytes": size}
    forget_peak(pid)
    before, used = resident_mb(pid), cpu_seconds(pid)
    api = {"method": "POST", "endpoint": PLAIN}
    result = await platform.result(platform.submit({"api": api, "payload": payload}))
    if "error" in result:
        raise RuntimeError(result["error"])
    return peak_mb(pid) - before, cpu_seconds(pid) - used
