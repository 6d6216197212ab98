"""What an engine prints: lines of bounded length, the last ones kept, a flood thinned out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

MAX_LINE_BYTES = 4096
MAX_LINES_PER_SECOND = 500

LogLine = Callable[[str], None]


class EngineLog:
    """Takes raw bytes from one thread; `tail` may be read from any.

    A carriage return ends a line too (progress bars), so empty lines are left out. Of more than
    `lines_per_second` lines the rest is counted, and the count logged as one line.
    unwanted: lines that hold it are left out, so that they do not push others out of the tail.
    """

    def __init__(
        self,
        log: LogLine,
        *,
        tail_lines: int,
        lines_per_second: int = MAX_LINES_PER_SECOND,
        unwanted: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._lines_per_second = lines_per_second
        self._unwanted = unwanted.encode()
        self._clock = clock
        self._lock = threading.Lock()
        self._tail: deque[bytes] = deque(maxlen=tail_lines)
        self._partial = b""
        self._window_end = 0.0
        self._room = 0
        self._dropped = 0

    def feed(self, data: bytes) -> None:
        """Take what was read; memory does not grow with it."""
        pieces = data.replace(b"\r", b"\n").split(b"\n")
        pieces[0] = self._partial + pieces[0]
        self._partial = pieces.pop()[:MAX_LINE_BYTES]
        self._take([piece[:MAX_LINE_BYTES] for piece in pieces if self._is_wanted(piece)])

    def tick(self) -> None:
        """Report dropped lines when their second is over; call it now and then."""
        now = self._clock()
        if now < self._window_end:
            return
        self._window_end, self._room = now + 1.0, self._lines_per_second
        self._report_dropped()

    def close(self) -> None:
        """Take the last line, if it had no end, and report what was dropped."""
        self.feed(b"\n")
        self._report_dropped()

    def tail(self) -> list[str]:
        """Return the last lines, oldest first; invalid UTF-8 is replaced."""
        with self._lock:
            lines = list(self._tail)
        return [_text(line) for line in lines]

    def _is_wanted(self, line: bytes) -> bool:
        """Whether a line says something that is to be kept."""
        return bool(line) and not (self._unwanted and self._unwanted in line)

    def _take(self, lines: list[bytes]) -> None:
        """Keep the last lines and log as many as there is room for."""
        self.tick()
        with self._lock:
            self._tail.extend(lines)
        for line in lines[: self._room]:
            self._log(_text(line))
        dropped = max(0, len(lines) - self._room)
        self._room -= len(lines) - dropped
        self._dropped += dropped

    def _report_dropped(self) -> None:
        """One line that says how many are missing."""
        if self._dropped:
            self._log(f"{self._dropped} lines of the engine's output were dropped: too many")
            self._dropped = 0


def _text(line: bytes) -> str:
    """Decode a line that may be cut or not be text at all."""
    return line.decode("utf-8", "replace")
