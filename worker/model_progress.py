"""Lines about a download: file, bytes, rate and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Progress:
    """Counts bytes and logs a line every few seconds; sizes are in bytes."""

    def __init__(self, log: Callable[[str], None], total: int, *, every: float) -> None:
        """Start counting; total is what is still to come."""
        self._log = log
        self.left = total
        self._every = every
        self._since = time.monotonic()
        self._bytes = 0

    def arrived(self, name: str, count: int) -> None:
        """Count bytes of a file, and log when it is time."""
        self.left -= count
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds >= self._every:
            rate = self._bytes / seconds
            self._log(
                f"downloading {name}: {size_text(rate)}/s, {size_text(max(0, self.left))} left, "
                f"about {max(0, self.left) / rate:.0f} s"
            )
            self._since, self._bytes = time.monotonic(), 0


def size_text(count: float) -> str:
    """Bytes in a unit that suits them."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
