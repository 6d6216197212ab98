"""Bytes of a server-sent event stream -> whole events, however the bytes are cut. Pure.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import NamedTuple

from worker.errors import EngineBroken

MAX_EVENT_BYTES = 20_000_000
_USUAL = "data: "


class Event(NamedTuple):
    """One event: its name ("" when it has none) and its data."""

    name: str
    data: str

    def encode(self) -> str:
        """The event as text that a client's decoder takes, blank line included."""
        if not self.name and "\n" not in self.data:
            return f"data: {self.data}\n\n"
        lines = "\ndata: ".join(self.data.split("\n"))
        head = f"event: {self.name}\n" if self.name else ""
        return f"{head}data: {lines}\n\n"


class EventDecoder:
    """Incremental decoder: comments and events without data are dropped, as the format says."""

    def __init__(self, *, limit: int = MAX_EVENT_BYTES) -> None:
        """Refuse any single event over `limit` bytes."""
        self._limit = limit
        self._waiting = b""
        self._carriage_return = False

    def feed(self, data: bytes) -> list[Event]:
        """All events that end in this piece; raises EngineBroken for what is no event stream."""
        if self._carriage_return or b"\r" in data:
            data = self._line_feeds(data)
        whole, end, self._waiting = (self._waiting + data).rpartition(b"\n\n")
        if len(self._waiting) > self._limit:
            raise EngineBroken("the engine sent an event without end; try again")
        if not end:
            return []
        try:
            blocks = whole.decode().split("\n\n")
        except UnicodeDecodeError as error:
            raise EngineBroken("the engine sent bytes that are not text; try again") from error
        return [event for block in blocks if (event := _parse(block)) is not None]

    def _line_feeds(self, data: bytes) -> bytes:
        """Make every line end a line feed; one that may be half of CR LF waits for the next."""
        if self._carriage_return:
            data = b"\r" + data
        self._carriage_return = data.endswith(b"\r")
        if self._carriage_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _parse(block: str) -> Event | None:
    """The event in a block of lines, None when it has no data."""
    if block.startswith(_USUAL) and "\n" not in block:
        return Event("", block[len(_USUAL) :])
    name, data = "", []
    for line in block.removeprefix("\ufeff").split("\n"):
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            name = value.removeprefix(" ")
    return Event(name, "\n".join(data)) if data else None
