"""`scripts/bench [NAME...]`: run comparisons, print them, keep them in benchmarks/results/."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.choose import BENCHMARKS
from benchmarks.machine import describe, load
from benchmarks.measure import Row
from benchmarks.options import Options

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Run what is named, everything by default."""
    options = _parse(arguments)
    # so that a SIGTERM ends the processes that were started, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = describe()
    chosen = Options(rounds=options.rounds, calls=options.calls, slow=not options.quick)
    for name in options.names or BENCHMARKS:
        rows = asyncio.run(BENCHMARKS[name](chosen))
        for row in rows:
            sys.stdout.write(text(row))
        sys.stdout.flush()
        _keep(options.results, name, rows, machine)
    return 0


def text(row: Row) -> str:
    """A row for the terminal."""
    lines = [f"\n{row.what} [{row.unit}]" + (f"  reach: {row.reach}" if row.reach else "")]
    for name, side in row.sides.items():
        spread = f"{side.low:.4g} to {side.high:.4g}"
        ratio = f"{row.ratios[name]:.2f} x {row.base}" if name in row.ratios else ""
        if ratio and side.rounds > 1:
            ratio += f" (best rounds {row.best_ratios[name]:.2f} x)"
        lines.append(f"  {name:<24}{side.median:>10.4g}  ({spread}, {side.rounds} rounds)  {ratio}")
    if row.note:
        lines.append(f"  note: {row.note}")
    return "\n".join(lines) + "\n"


def _keep(folder: Path, name: str, rows: list[Row], machine: dict[str, object]) -> None:
    """Write the record in place of the last one; its time is UTC."""
    record = {
        "benchmark": name,
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "machine": machine,
        "load_average_after": load(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)} (all)")
    add("--rounds", type=int, default=5, help="rounds of each comparison (5)")
    add("--calls", type=int, default=300, help="calls in a round of the fastest ones (300)")
    add("--quick", action="store_true", help="leave out what takes minutes")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
