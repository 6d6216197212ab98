"""How long jobs wait with several workers: real ones through the emulator, beside the calculation.

The engines are fake: a job takes the time that it says. Arrivals are random (Poisson), the work of
a job too (exponential), as it is with texts of random length. The same jobs are given to
`queue_model`: where both agree, its figures for other rates, more workers and the two scalers
(`scaling`) can be trusted.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from benchmarks.jobs import EmulatorPlatform, generation
from benchmarks.measure import Row, summarize
from benchmarks.options import Options
from benchmarks.queue_model import Endpoint, Job, poisson, simulate
from benchmarks.stub import running_stub
from benchmarks.workers import ROOT, ours
from emulator.fleet import FleetOptions
from emulator.server import Emulator, running_emulator
from worker.settings import Settings

LOAD = 0.8
# workers, slots
_CASES = ((1, 1), (1, 4), (1, 16), (8, 1), (8, 4), (32, 1))
_QUICK = ((2, 2),)
# What two cores can do beside 32 workers, and a job's least seconds, beside which the way is short.
_MOST_JOBS_A_SECOND = 30.0
_LEAST_WORK = 0.05
_SEED = 7
_START_SECONDS = 120.0


async def scale(options: Options) -> list[Row]:
    """The waits of jobs for some numbers of workers and slots, measured and computed."""
    count = 2 * options.calls if options.slow else 30
    rows = []
    for workers, slots in _CASES if options.slow else _QUICK:
        rate = min(_MOST_JOBS_A_SECOND, LOAD * workers * slots / _LEAST_WORK)
        work = LOAD * workers * slots / rate
        jobs = poisson(rate, work, count, _SEED)
        endpoint = Endpoint(slots=slots, extra=_extra(), least=workers, most=workers)
        sides = {
            "measured": await _measured(jobs, workers, slots),
            "computed": simulate(jobs, endpoint).waits,
        }
        figures = {}
        for side, waits in sides.items():
            inner = [wait / work for wait in waits]
            figures[f"mean, {side}"] = summarize([statistics.fmean(inner)])
            figures[f"p99, {side}"] = summarize([statistics.quantiles(inner, n=100)[98]])
        rows.append(
            Row(
                f"{workers} workers of {slots} slots, {rate:.3g} jobs/s of {work:.2g} s: wait",
                "x a job's work",
                figures,
                "p99, computed",
                note=f"{LOAD:.0%} of what the slots can do; fake engines, {count} jobs",
            )
        )
    return rows


def _extra() -> int:
    """WORKER_EXTRA_JOBS as the workers have it."""
    extra: int = Settings.variables()["WORKER_EXTRA_JOBS"]
    return extra


async def _measured(jobs: Sequence[Job], workers: int, slots: int) -> list[float]:
    """Seconds that each job took longer than its work."""
    async with running_stub() as (port, _):
        quiet = ("sh", "-c", 'exec "$0" "$@" 2>/dev/null')
        command = (*quiet, sys.executable, *ours(port, slots=slots))
        fleet = FleetOptions(command=command, folder=ROOT, count=workers)
        async with running_emulator(fleet=fleet) as emulator:
            await asyncio.wait_for(_until_ready(emulator, workers), _START_SECONDS)
            platform = EmulatorPlatform(emulator)

            async def one(work: float) -> float:
                started = time.monotonic()
                await platform.result(platform.submit(generation(delay=work)))
                return time.monotonic() - started - work

            began = time.monotonic()
            tasks = []
            for arrival, work in jobs:
                await asyncio.sleep(began + arrival - time.monotonic())
                tasks.append(asyncio.create_task(one(work)))
            return list(await asyncio.gather(*tasks))


async def _until_ready(emulator: Emulator, workers: int) -> None:
    """Wait until so many workers have asked for a job."""
    while sum(worker.ready for worker in emulator.endpoint.roster.all()) < workers:  # noqa: ASYNC110 - seen from inside
        await asyncio.sleep(0.05)
