"""The two ways the platform scales, computed: a plot and a table for choosing slots and scaler."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.queue_model import Endpoint, poisson, simulate

# A text of 200 tokens at 40 a second; seconds.
WORK = 5.0
_COUNT = 10_000
_SEED = 3
_RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 30.0)
_TABLE_RATES = (0.02, 0.2, 2.0)
_COLUMNS = {
    "jobs a second": "throughput",
    "median wait, s": "median",
    "p99 wait, s": "p99",
    "worker-seconds a job": "cost",
}
# A queue that grows without end is drawn up to here.
_HIGHEST_WAIT = 200.0


@dataclass(frozen=True, slots=True)
class Point:
    """One endpoint at one rate: jobs a second that are done, seconds of waiting, what is billed."""

    rate: float
    throughput: float
    median: float
    p99: float
    cost: float


def point(endpoint: Endpoint, rate: float, count: int = _COUNT) -> Point:
    """Compute one point."""
    outcome = simulate(poisson(rate, WORK, count, _SEED), endpoint)
    cuts = statistics.quantiles(outcome.waits, n=100)
    return Point(rate, count / outcome.end, cuts[49], cuts[98], outcome.worker_seconds / count)


def choices(scaler: str) -> Mapping[str, Endpoint]:
    """The endpoints that are compared, under one scaler."""
    chosen = {}
    for slots in (1, 4, 16):
        value = slots if scaler == "REQUEST_COUNT" else None
        chosen[f"{slots} slots" if slots > 1 else "1 slot"] = Endpoint(slots=slots, requests=value)
    chosen["1 slot, WORKER_EXTRA_JOBS=0"] = replace(chosen["1 slot"], extra=0)
    return chosen


def section() -> str:
    """Markdown: what was assumed, the plot, a table."""
    head = " | ".join(f"{rate:g}/s" for rate in _TABLE_RATES)
    lines = [
        "### scaling, computed",
        "",
        f"A job works {WORK:g} s in the mean (exponential), jobs come at random (Poisson), a cold "
        "start takes 20 s, the idle timeout is 5 s, at most 32 workers; every slot is as fast as a "
        "lone one. Computed (`benchmarks/queue_model.py`, whose assumptions it states), not "
        "measured; the section above shows how near it is. Each cell: median wait, p99 wait, "
        "worker-seconds a job.",
        "",
        "![scaling](performance/scaling.png)",
        "",
        f"| scaler | endpoint | {head} |",
        "|---|---|---|---|---|",
    ]
    for scaler, endpoints in _compared().items():
        for name, endpoint in endpoints.items():
            cells = " | ".join(_cell(point(endpoint, rate)) for rate in _TABLE_RATES)
            lines.append(f"| {scaler} | {name} | {cells} |")
    return "\n".join([*lines, ""])


def draw(path: Path) -> None:
    """Each column of figures against the rate, for both scalers."""
    # only drawing needs it, and the tools of development don't
    import matplotlib as mpl  # type: ignore[import-not-found] # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above, and after the choice

    scalers = {"REQUEST_COUNT": "REQUEST_COUNT, value = slots", "QUEUE_DELAY": "QUEUE_DELAY, 4 s"}
    figure, axes = plt.subplots(2, len(_COLUMNS), figsize=(17, 7))
    for line, (scaler, title) in zip(axes, scalers.items(), strict=True):
        for name, endpoint in choices(scaler).items():
            points = [point(endpoint, rate) for rate in _RATES]
            for axis, (label, figure_of) in zip(line, _COLUMNS.items(), strict=True):
                values = [min(getattr(one, figure_of), _HIGHEST_WAIT) for one in points]
                style = "--" if "EXTRA" in name else "-"
                axis.plot(_RATES, values, style, marker=".", label=name)
                _label(axis, title, label)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _compared() -> Mapping[str, Mapping[str, Endpoint]]:
    """The table's rows."""
    counted = choices("REQUEST_COUNT")
    eager = {
        name: replace(endpoint, requests=endpoint.slots / 2)
        for name, endpoint in counted.items()
        if endpoint.slots > 1
    }
    return {
        "REQUEST_COUNT, value = slots": counted,
        "REQUEST_COUNT, value = slots / 2": eager,
        "QUEUE_DELAY, 4 s": choices("QUEUE_DELAY"),
    }


def _cell(one: Point) -> str:
    return f"{one.median:.1f} s, {one.p99:.0f} s, {one.cost:.1f}"


def _label(axis: Any, title: str, label: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("jobs that come, a second", fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.set_xscale("log")
    if "second" in label:
        axis.set_yscale("log")
    else:
        axis.set_yscale("symlog", linthresh=1)
    axis.tick_params(labelsize=8)
    axis.grid(visible=True, alpha=0.3)
