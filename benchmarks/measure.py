"""Interleaved rounds and what is made of them: medians, spread, ratios. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Sample = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Summary:
    """One side's figures: the median of its rounds, the middle half, the extremes, their number."""

    median: float
    low: float
    high: float
    least: float
    most: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    unit: of all figures; base: the side that the ratios are against; reach: what ours should be;
    lower_is_better: for a reader of the plot; note: what limits it. ratios are of the medians,
    best_ratios of each side's best round: on a machine that others use it is the least disturbed.
    """

    what: str
    unit: str
    sides: Mapping[str, Summary]
    base: str
    reach: str = ""
    lower_is_better: bool = True
    note: str = ""
    ratios: Mapping[str, float] = field(init=False)
    best_ratios: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Work out each side's ratios to the base."""
        medians = {name: side.median for name, side in self.sides.items()}
        best = {
            name: side.least if self.lower_is_better else side.most
            for name, side in self.sides.items()
        }
        object.__setattr__(self, "ratios", _to(self.base, medians))
        object.__setattr__(self, "best_ratios", _to(self.base, best))


def _to(base: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {name: figure / figures[base] for name, figure in figures.items() if figures[base]}


def summarize(samples: list[float]) -> Summary:
    """Make a side's figures of its rounds (one at least)."""
    if len(samples) == 1:
        (only,) = samples
        return Summary(only, only, only, only, only, rounds=1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Summary(median, low, high, min(samples), max(samples), len(samples))


async def interleaved(
    sides: Mapping[str, Sample], *, rounds: int, warm_up: int = 1
) -> dict[str, Summary]:
    """Run every side once a round, in an order that turns with the rounds."""
    names = list(sides)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm_up + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            figure = await sides[name]()
            if number >= warm_up:
                samples[name].append(figure)
    return {name: summarize(figures) for name, figures in samples.items()}
