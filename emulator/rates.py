"""The platform's rate limits for each operation, in windows of ten seconds.

https://docs.runpod.io/serverless/endpoints/send-requests ("Rate limits"), runpod/docs commit
a900806. Only the base limits: the ones that grow with the workers have no documented number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emulator.errors import Refused

WINDOW = 10.0
# operation -> (requests in ten seconds, requests at once)
DOCUMENTED: Mapping[str, tuple[int, int | None]] = {
    "runsync": (2000, 400),
    "run": (1000, 200),
    "status": (2000, 400),
    "stream": (2000, 400),
    "cancel": (100, 20),
    "purge-queue": (2, None),
    "openai": (2000, 400),
}


class Rates:
    """Counts requests in fixed windows. `enter` each request, `leave` when it is answered."""

    def __init__(
        self, clock: Callable[[], float], limits: Mapping[str, tuple[int, int | None]] = DOCUMENTED
    ) -> None:
        """Start with empty windows; an operation without a limit is free."""
        self._clock = clock
        self._limits = limits
        self._window = -1
        self._counts: dict[str, int] = {}
        self._open: dict[str, int] = {}

    def enter(self, operation: str) -> None:
        """Count a request; Refused (429) when it is one too many."""
        window = int(self._clock() // WINDOW)
        if window != self._window:
            self._window, self._counts = window, {}
        count, at_once = self._counts.get(operation, 0), self._open.get(operation, 0)
        most, most_at_once = self._limits.get(operation, (None, None))
        if most is not None and count >= most:
            raise Refused(429, f"more than {most} {operation} requests in 10 seconds; slow down")
        if most_at_once is not None and at_once >= most_at_once:
            raise Refused(429, f"more than {most_at_once} {operation} requests at once; slow down")
        self._counts[operation] = count + 1
        self._open[operation] = at_once + 1

    def leave(self, operation: str) -> None:
        """Note that a request that entered is answered."""
        self._open[operation] -= 1
