"""Stream events -> the chunks that are posted. Pure.

Two kinds of events: text of whole server-sent events (OpenAI routes), and the frames of the
blocking API's websocket, {"event": "text_stream", "text" | "history": ...} and
{"event": "stream_end"} (text-generation-webui@e18a0460 extensions/api/streaming_api.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from worker.stream import MAX_CHUNK_BYTES

# A frame's JSON escapes a character with at most 6 bytes ("\u0000").
_MAX_FRAME_CHARACTERS = MAX_CHUNK_BYTES // 6 - 100
# JSON doubles a text at most (quotes, line ends): events hold JSON, so no other control characters.
_MAX_JOINED_BYTES = MAX_CHUNK_BYTES // 2 - 100
END_FRAME: dict[str, Any] = {"event": "stream_end"}


def text_frame(text: str) -> dict[str, Any]:
    """The frame of some generated text."""
    return {"event": "text_stream", "text": text}


def history_frame(history: Any) -> dict[str, Any]:
    """The frame of a chat's whole history so far."""
    return {"event": "text_stream", "history": history}


class Merger:
    """Merges the waiting events of one job into as few chunks as fit; numbers its frames."""

    def __init__(self) -> None:
        """Start numbering at 0."""
        self._next = 0

    def __call__(self, events: Sequence[Any]) -> list[Any]:
        """The chunks for these events, each whole and under the platform's limit."""
        if all(isinstance(event, str) for event in events):
            return list(_joined(events))
        return [self._numbered(frame) for frame in _merged_frames(events)]

    def _numbered(self, frame: dict[str, Any]) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        rest = {key: value for key, value in frame.items() if key != "event"}
        return {"event": frame["event"], "message_num": number, **rest}


def _joined(events: Sequence[str]) -> Iterator[str]:
    """Texts joined up to the limit; an event is never cut, be it over the limit alone."""
    waiting: list[str] = []
    size = 0
    for event in events:
        length = len(event.encode())
        if waiting and size + length > _MAX_JOINED_BYTES:
            yield "".join(waiting)
            waiting, size = [], 0
        waiting.append(event)
        size += length
    yield "".join(waiting)


def _merged_frames(events: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Consecutive texts become one text; of consecutive histories the last holds the others."""
    text = ""
    for event, following in zip(events, [*events[1:], END_FRAME], strict=True):
        if "text" in event:
            text += event["text"]
            if "text" not in following:
                yield from _bounded(text)
                text = ""
        elif "history" not in event or "history" not in following:
            yield event


def _bounded(text: str) -> Iterator[dict[str, Any]]:
    for start in range(0, len(text), _MAX_FRAME_CHARACTERS):
        yield text_frame(text[start : start + _MAX_FRAME_CHARACTERS])
