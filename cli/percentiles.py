"""Percentiles of what a benchmark measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

PERCENTILES = (50, 90, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that so many per cent do not exceed."""
    if not values:
        raise ValueError("there are no values")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def summary(values: Sequence[float]) -> Mapping[str, float] | None:
    """Least, percentiles and most; None when nothing was measured."""
    if not values:
        return None
    ranks = {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}
    return {"min": min(values), **ranks, "max": max(values)}
