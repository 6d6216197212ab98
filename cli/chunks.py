"""What a job streams -> the new text in it. Pure."""

from __future__ import annotations

import json
from typing import Any

from worker.events import EventDecoder


class TextStream:
    """Makes text of chunks: frames of the blocking API, or server-sent events of OpenAI's.

    history: the last whole history of a chat, None before the first.
    """

    def __init__(self, already: str = "") -> None:
        """already: the beginning of a chat's reply that is there before (to go on with)."""
        self.history: dict[str, Any] | None = None
        self._reply = already
        self._events = EventDecoder()

    def feed(self, chunk: Any) -> str:
        """The text that is new with this chunk; "" for one without text."""
        if isinstance(chunk, str):
            events = self._events.feed(chunk.encode("utf-8", "surrogatepass"))
            return "".join(_text_of_event(event.data) for event in events)
        if not isinstance(chunk, dict):
            return ""
        if isinstance(chunk.get("history"), dict):
            return self._of_history(chunk["history"])
        text = chunk.get("text")
        return text if isinstance(text, str) else ""

    def _of_history(self, history: dict[str, Any]) -> str:
        """What the last reply has more than before; all of it when it is another one."""
        self.history = history
        reply, before = last_reply(history), self._reply
        self._reply = reply
        return reply[len(before) :] if reply.startswith(before) else f"\n{reply}"


def last_reply(history: Any) -> str:
    """The last thing that the model said; "" in an empty or odd history."""
    try:
        return str(history["internal"][-1][1])
    except (KeyError, IndexError, TypeError):
        return ""


def text_of_output(output: Any) -> str | None:
    """The text in a job's output, None when it is no text (a model's name is one)."""
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    if not isinstance(output, dict):
        return None
    if isinstance(output.get("result"), str):
        return str(output["result"])
    try:
        results: Any = output.get("results") or output.get("choices")
        result = results[0]
        if "history" in result:
            return last_reply(result["history"])
        text = result.get("text")
        return text if isinstance(text, str) else _text_of_choice(result) or None
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _text_of_event(data: str) -> str:
    """The text in one event of an OpenAI stream."""
    try:
        return _text_of_choice(json.loads(data)["choices"][0])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""


def _text_of_choice(choice: dict[str, Any]) -> str:
    message = choice.get("delta") or choice.get("message") or {}
    text = choice.get("text") or message.get("content")
    return text if isinstance(text, str) else ""
