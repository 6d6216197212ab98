"""`python -m chaos`: lets accidents happen to the real worker and prints what its users saw."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from chaos.cases import (
    ONE_PLACE,
    OPERATIONS_OF_ONE,
    Accident,
    Seen,
    accidents,
    watch,
    watch_weather,
)
from chaos.hostile import hostile
from chaos.load import Load, run_load

HEAD = """\
| case | what the user saw | answer after (s) | well after (s) |
|---|---|---|---|"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", help="cases, engine, platform, load, memory (all but memory)")
    add("--only", default="", help="of the cases, those that have this in their name")
    add("--freeze", type=float, default=5.0, help="seconds that a worker is frozen (5)")
    add("--jobs", type=int, default=500, help="jobs of load and of memory (500)")
    add("--clients", type=int, default=50, help="clients at once (50)")
    add("--kill-every", type=float, default=5.0, help="seconds between two killed workers (5)")
    options = parser.parse_args(arguments)
    options.parts = options.parts or ["cases", "engine", "platform", "load"]
    return options


async def main(options: argparse.Namespace) -> int:
    """Run the chosen parts; 1 when a job was lost, answered twice or waited for ever."""
    print(HEAD, flush=True)  # noqa: T201 - this is what it is for
    well = True
    if "cases" in options.parts:
        well &= await show_all(accidents(options.freeze), options.only)
    if "engine" in options.parts:
        with hostile() as more:
            well &= await show_all(more, options.only)
    if "platform" in options.parts:
        single = await watch_weather(OPERATIONS_OF_ONE, ONE_PLACE)
        for seen in [*await watch_weather(), *single]:
            well &= show(seen)
    load = Load(jobs=options.jobs, clients=options.clients, kill_every=options.kill_every)
    if "load" in options.parts:
        well &= report(await run_load(load))
    if "memory" in options.parts:
        well &= report(await run_load(Load(jobs=options.jobs, clients=8, workers=1, kill_every=0)))
    return 0 if well else 1


async def show_all(accidents: Sequence[Accident], only: str) -> bool:
    """Let those happen that have this in their name; whether the worker recovered each time."""
    return all([show(await watch(accident)) for accident in accidents if only in accident.name])


def show(seen: Seen) -> bool:
    """Print one line of the table; whether the worker recovered."""
    times = " | ".join(
        "never" if time is None else f"{time:.1f}" for time in (seen.answer, seen.well)
    )
    print(f"| {seen.case} | {seen.saw} | {times} |", flush=True)  # noqa: T201 - as above
    return seen.well is not None


def report(figures: dict[str, object]) -> bool:
    """Print the figures of a load; whether they are as promised."""
    for name, value in figures.items():
        print(f"{name}: {value}", flush=True)  # noqa: T201 - as above
    return not figures["wrong"]


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse(sys.argv[1:]))))
