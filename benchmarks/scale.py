"""How long jobs wait against how many arrive, for an engine with 1, 4 or 16 slots.

Each engine can do 50 jobs a second: one slot 20 ms a job, 16 slots 320 ms each. Arrivals are random
(Poisson), the work of a job too (exponential), as it is with texts of random length.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time

from benchmarks.jobs import EmulatorPlatform, generation
from benchmarks.measure import Row, summarize
from benchmarks.options import Options
from benchmarks.stub import running_stub
from benchmarks.workers import ours, worker_process
from emulator.server import running_emulator

JOBS_PER_SECOND = 50
_LOADS = (0.5, 0.7, 0.9)
_SEED = 7


async def scale(options: Options) -> list[Row]:
    """The wait of jobs for each number of slots and each load."""
    rows = []
    count = 10 * options.calls if options.slow else 30
    for slots in (1, 4, 16) if options.slow else (4,):
        waits = {f"load {load:.0%}": await _waits(slots, load, count) for load in _LOADS}
        for part, share in (("median", 50), ("p99", 99)):
            figures = {
                name: summarize([statistics.quantiles(times, n=100)[share - 1] * 1e3])
                for name, times in waits.items()
            }
            what = f"{slots} slots: {part} of what a job takes beyond its own work"
            rows.append(Row(what, "ms", figures, "load 50%"))
    return rows


async def _waits(slots: int, load: float, count: int) -> list[float]:
    """Seconds that each job took longer than its work."""
    draw = random.Random(_SEED)  # noqa: S311 - the same arrivals for every number of slots
    service = slots / JOBS_PER_SECOND
    async with (
        running_stub() as (port, _),
        running_emulator() as emulator,
        worker_process(ours(port, slots=slots), emulator.worker_environment("worker")),
    ):
        platform = EmulatorPlatform(emulator)
        await platform.result(platform.submit(generation()))

        async def one(work: float) -> float:
            started = time.monotonic()
            await platform.result(platform.submit(generation(delay=work)))
            return time.monotonic() - started - work

        jobs = []
        due = time.monotonic()
        for _ in range(count):
            due += draw.expovariate(load * JOBS_PER_SECOND)
            await asyncio.sleep(due - time.monotonic())
            jobs.append(asyncio.create_task(one(draw.expovariate(1 / service))))
        return list(await asyncio.gather(*jobs))
