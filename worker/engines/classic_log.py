"""What the classic's log tells of a generation that its API does not: how it ended. Pure.

Its API answers "200 OK" before it works, and a generation that fails in the middle is a short text.
The log has the traceback before the line "Output generated in ...". Facts from
text-generation-webui@snapshot-2023-11-05: modules/text_generation.py, modules/callbacks.py.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_OUTPUT = re.compile(r"Output generated in .*, (-?\d+) tokens, context (\d+),")
_NO_MODEL = "No model is loaded!"
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'File "([^"]+)"')
# Where a failed generation is caught; other tracebacks end a connection.
_CATCHERS = ("modules/callbacks.py", "modules/text_generation.py")
_KEPT = 200
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Output:
    """A generation has ended, well or not: how many tokens it made."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, as its last line reads; swallowed: the API answered as if there was none."""

    text: str
    swallowed: bool


Entry = Output | Failure


class ClassicLog:
    """Takes the log's lines from one thread; may be read from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=_KEPT)
        self._count = 0
        self._in_traceback = False
        self._catcher: str | None = None

    def feed(self, line: str) -> None:
        """Take the next line, without colours."""
        entry = self._entry(line)
        if entry is not None:
            with self._lock:
                self._count += 1
                self._entries.append((self._count, entry))

    def mark(self) -> int:
        """A place in the log, for `since`."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> list[Entry]:
        """What was found after the mark, oldest first."""
        with self._lock:
            return [entry for number, entry in self._entries if number > mark]

    async def wait(self, mark: int, wanted: tuple[type[Entry], ...], seconds: float) -> list[Entry]:
        """What was found after the mark, once something wanted is among it or the time is over.

        The log comes through a pipe of its own, a little later than the answer.
        """
        import asyncio  # noqa: PLC0415 - a caller has a loop, so it is loaded already

        deadline = time.monotonic() + seconds
        while True:
            entries = self.since(mark)
            found = any(isinstance(entry, wanted) for entry in entries)
            if found or time.monotonic() >= deadline:
                return entries
            await asyncio.sleep(_POLL_SECONDS)

    def _entry(self, line: str) -> Entry | None:
        """What this line ends, None for any other line."""
        if line.startswith(_TRACEBACK):
            self._in_traceback, self._catcher = True, None
            return None
        if self._in_traceback:
            return self._traceback(line)
        if match := _OUTPUT.search(line):
            return Output(int(match[1]))
        if _NO_MODEL in line:
            return Failure(_NO_MODEL, swallowed=True)
        return None

    def _traceback(self, line: str) -> Failure | None:
        """A line within a traceback; the first that is not indented is the exception."""
        if line[:1].isspace():
            frame = _FRAME.search(line)
            if frame and self._catcher is None:
                self._catcher = frame[1].replace("\\", "/")
            return None
        self._in_traceback = False
        swallowed = self._catcher is not None and self._catcher.endswith(_CATCHERS)
        return Failure(line.strip(), swallowed)


def tokens_of(entries: list[Entry]) -> int | None:
    """How many tokens were generated, None when the log does not say."""
    return next((entry.tokens for entry in reversed(entries) if isinstance(entry, Output)), None)


def failures_of(entries: list[Entry]) -> Iterator[Failure]:
    """The exceptions, oldest first."""
    return (entry for entry in entries if isinstance(entry, Failure))
