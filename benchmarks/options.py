"""How long a benchmark may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is run.

    rounds: of each comparison; calls: in a round of the fastest ones; events: of a stream; slow:
    also what takes minutes.
    """

    rounds: int = 5
    calls: int = 300
    events: int = 200
    slow: bool = True
