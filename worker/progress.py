"""What is known of one job while it runs: where its time goes and how many tokens it made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

_MOST_TOKENS = 10**9


class Progress:
    """Figures for the job's log line; all times on the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the job's clock."""
        self._clock = clock
        self._started = clock()
        self._slot: float | None = None
        self._first: float | None = None
        self._tokens: int | None = None

    def slot(self) -> None:
        """The job has an engine slot."""
        self._slot = self._clock()

    @property
    def has_slot(self) -> bool:
        """Whether the job has, or had, an engine slot."""
        return self._slot is not None

    def token(self) -> None:
        """Something was generated; only the first counts."""
        if self._first is None:
            self._first = self._clock()

    def tokens(self, count: Any) -> None:
        """So many tokens were generated; what can't be such a number is ignored."""
        if isinstance(count, int) and 0 <= count < _MOST_TOKENS:
            self._tokens = count

    def figures(self) -> Mapping[str, Any]:
        """Seconds waited for a slot, to the first token and in all; tokens and tokens a second."""
        now = self._clock()
        return {
            "queue_s": _between(self._started, self._slot),
            "first_token_s": _between(self._started, self._first),
            "tokens": self._tokens,
            "tokens_per_s": self._rate(now),
            "seconds": _between(self._started, now),
        }

    def _rate(self, now: float) -> float | None:
        if not self._tokens or self._first is None or now <= self._first:
            return None
        return round(self._tokens / (now - self._first), 1)


def _between(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 4)
