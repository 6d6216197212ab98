"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from benchmarks.forwarding import forwarding
from benchmarks.growth import growth
from benchmarks.jobs import jobs
from benchmarks.lifecycle import lifecycle
from benchmarks.measure import Row
from benchmarks.memory import memory
from benchmarks.options import Options
from benchmarks.scale import scale
from benchmarks.starts import starts

Benchmark = Callable[[Options], Coroutine[Any, Any, list[Row]]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "forwarding": forwarding,
    "jobs": jobs,
    "starts": starts,
    "growth": growth,
    "lifecycle": lifecycle,
    "memory": memory,
    "scale": scale,
}
