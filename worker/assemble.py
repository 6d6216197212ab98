"""Events of a streamed answer -> the one object that the same request without `stream` gives. Pure.

One assembler for each family of routes; `assembler_for` chooses. What a stream of each must end
with is part of it: anything shorter is a broken answer, not a short one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from worker.errors import EngineBroken, EngineRefused
from worker.events import Event
from worker.plain import plain, redacted
from worker.usual_event import UsualEvent

DONE = "[DONE]"
# What llama.cpp's server begins a completion of several prompts with; clients fail on it.
_EMPTY = "null"
_SHAPE = "the engine sent an event of an unknown shape; try again"
_MOST_NEW_CALLS = 64
_NO_EFFECT = {"index", "finish_reason", "logprobs"}  # without a value
_CHUNK_ONLY = ("choices", "object", "usage", "timings")
_TAIL = ("usage", "timings")
# without the search for white space of json.loads, which is as long as an event's parsing
_decode = json.JSONDecoder().raw_decode


class Assembler(Protocol):
    """Takes the events of one answer, in order."""

    def add(self, event: Event) -> bool:
        """Take one event; False when it only answers a question that the worker itself asked."""
        ...

    def result(self, *, stopped: bool) -> dict[str, Any]:
        """The whole object; EngineBroken when it is not complete and nobody stopped it."""
        ...

    def partial(self) -> str:
        """The text so far."""
        ...


def assembler_for(path: str, *, hide_usage: bool) -> Assembler | None:
    """The assembler for a route, None for one that is not streamed."""
    if path == "/v1/chat/completions":
        return ChoicesAssembler("chat.completion", hide_usage=hide_usage)
    if path == "/v1/completions":
        return ChoicesAssembler("text_completion", hide_usage=hide_usage)
    if path == "/v1/responses":
        return ResponseAssembler()
    if path == "/v1/messages":
        return MessageAssembler()
    return None


class ChoicesAssembler:
    """Chat and text completions: https://platform.openai.com/docs/api-reference/chat-streaming."""

    def __init__(self, kind: str, *, hide_usage: bool) -> None:
        """Name the object; hide_usage: the client did not ask for the event with the usage."""
        self._kind = kind
        self._hide_usage = hide_usage
        self._last: dict[str, Any] = {}  # of each key that a chunk had, the last value
        self._choices: dict[int, dict[str, Any]] = {}
        self._done = False
        self._usual = UsualEvent()
        self._grows: tuple[dict[str, Any], str] = ({}, "")  # by the text of a usual event

    def add(self, event: Event) -> bool:
        """Take one event."""
        if event.data == DONE:
            self._done = True
            return True
        if event.data == _EMPTY:
            return False
        return _shaped(self._add, event)

    def _add(self, event: Event) -> bool:
        text = self._usual.text_of(event.data)
        if text is not None:
            grows, key = self._grows
            grows[key] += text
            return True
        chunk = parse_event(event, self.partial)
        self._last.update(chunk)
        choices = chunk.get("choices") or []
        for choice in choices:
            self._add_choice(choice)
        if len(choices) == 1:
            self._learn(event.data, chunk, choices[0])
        return bool(choices) or not self._hide_usage

    def _learn(self, data: str, chunk: Mapping[str, Any], choice: dict[str, Any]) -> None:
        """Learn what an event looks like whose only effect is that a text grows."""
        more = choice.keys() - _NO_EFFECT
        if choice.get("finish_reason") or choice.get("logprobs"):
            return
        mine, place, key = self._choices[choice.get("index", 0)], choice, "text"
        if more == {"delta"} and choice["delta"]:
            mine, place, key = mine["message"], choice["delta"], "content"
            more = place.keys()
        if more == {key} and isinstance(place[key], str):
            self._grows = mine, key
            self._usual.learn(data, chunk, place, key)

    def _add_choice(self, chunk: Mapping[str, Any]) -> None:
        index = chunk.get("index", 0)
        if not isinstance(index, int):
            raise ValueError(_SHAPE)  # noqa: TRY004  # one error for all wrong shapes
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = {"index": index, "finish_reason": None}
        if chunk.get("finish_reason"):
            choice["finish_reason"] = chunk["finish_reason"]
        if "delta" in chunk:
            if "message" not in choice:
                choice["message"] = {}
            _merge(choice["message"], chunk["delta"] or {})
        if "text" in chunk:
            choice["text"] = choice.get("text", "") + (chunk["text"] or "")
        if "logprobs" in chunk:
            _merge_logprobs(choice, chunk["logprobs"])

    def result(self, *, stopped: bool) -> dict[str, Any]:
        """The completion object."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            if choice["finish_reason"] is None and stopped:
                choice["finish_reason"] = "stop"
        if not stopped and (not self._done or not _all_finished(choices)):
            raise ended_early(self.partial())
        head = {key: value for key, value in self._last.items() if key not in _CHUNK_ONLY}
        tail = {key: self._last[key] for key in _TAIL if key in self._last}
        return {**head, "object": self._kind, "choices": choices, **tail}

    def partial(self) -> str:
        """The first choice's text so far."""
        choice = self._choices.get(0, {})
        text = choice.get("text") or choice.get("message", {}).get("content")
        return text or ""


class ResponseAssembler:
    """Responses: the last event holds the whole object."""

    def __init__(self) -> None:
        """Start empty."""
        self._text: list[str] = []
        self._response: dict[str, Any] | None = None

    def add(self, event: Event) -> bool:
        """Take one event."""
        if event.data == DONE:
            return True
        return _shaped(self._add, event)

    def _add(self, event: Event) -> bool:
        chunk = parse_event(event, self.partial)
        kind = chunk.get("type")
        if kind == "response.output_text.delta":
            self._text.append("" + (chunk.get("delta") or ""))
        elif kind in ("response.completed", "response.incomplete"):
            self._response = {**chunk["response"]}
        elif kind == "response.failed":
            raise EngineBroken("the engine gave up on the response", detail=chunk.get("response"))
        return True

    def result(self, *, stopped: bool) -> dict[str, Any]:
        """The response object."""
        if self._response is None:
            if not stopped:
                raise ended_early(self.partial())
            part = {"type": "output_text", "text": self.partial(), "annotations": []}
            message = {"type": "message", "role": "assistant", "content": [part]}
            return {"object": "response", "status": "incomplete", "output": [message]}
        return self._response

    def partial(self) -> str:
        """The text so far."""
        return "".join(self._text)


class MessageAssembler:
    """Anthropic messages: a start, deltas of numbered blocks, a final delta, a stop."""

    def __init__(self) -> None:
        """Start empty."""
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._done = False

    def add(self, event: Event) -> bool:
        """Take one event."""
        return _shaped(self._add, event)

    def _add(self, event: Event) -> bool:
        chunk = parse_event(event, self.partial)
        kind = chunk.get("type")
        if kind == "message_start":
            self._message.update(chunk.get("message") or {})
        elif kind == "content_block_start":
            self._blocks[chunk["index"]] = dict(chunk.get("content_block") or {})
        elif kind == "content_block_delta":
            self._add_delta(self._blocks.setdefault(chunk["index"], {}), chunk.get("delta") or {})
        elif kind == "message_delta":
            usage = {**self._message.get("usage", {}), **(chunk.get("usage") or {})}
            self._message.update({**(chunk.get("delta") or {}), "usage": usage})
        elif kind == "message_stop":
            self._done = True
        return True

    def _add_delta(self, block: dict[str, Any], delta: Mapping[str, Any]) -> None:
        for key, value in delta.items():
            if key == "partial_json":
                block["_json"] = block.get("_json", "") + value
            elif key != "type":
                block[key] = block.get(key, "") + value if isinstance(value, str) else value

    def result(self, *, stopped: bool) -> dict[str, Any]:
        """The message object."""
        if not self._done and not stopped:
            raise ended_early(self.partial())
        content = [_with_input(self._blocks[index]) for index in sorted(self._blocks)]
        reason = self._message.get("stop_reason") or "end_turn"
        return {**self._message, "content": content, "stop_reason": reason}

    def partial(self) -> str:
        """The text so far."""
        return "".join(str(block.get("text", "")) for block in self._blocks.values())


def parse_event(event: Event, partial: Any = str) -> dict[str, Any]:
    """The JSON object of an event; raises EngineRefused for an error that comes as an event."""
    text = event.data.strip()
    try:
        chunk, end = _decode(text)
    except (ValueError, RecursionError) as fault:
        raise EngineBroken("the engine sent an event that is not JSON; try again") from fault
    if end != len(text):
        raise EngineBroken("the engine sent an event that is not JSON; try again")
    if not isinstance(chunk, dict):
        raise EngineBroken("the engine sent an event that is not an object; try again")
    error = chunk.get("error")
    if error:
        message = error.get("message") if isinstance(error, dict) else error
        raise EngineRefused(
            f"the engine broke off: {plain(str(message))}",
            status=502,
            detail={"error": redacted(error), "partial": partial()},
        )
    return chunk


def _shaped(add: Callable[[Event], bool], event: Event) -> bool:
    """Add an event; one of a shape that is not its route's is a broken answer."""
    try:
        return add(event)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as fault:
        raise EngineBroken(_SHAPE) from fault


def ended_early(partial: str) -> EngineBroken:
    """The error of an answer that has no end, with what there was of it."""
    return EngineBroken(
        "the engine's answer ended early and is not complete; try again",
        detail={"partial": partial},
    )


def _all_finished(choices: Iterable[Mapping[str, Any]]) -> bool:
    reasons = [choice["finish_reason"] for choice in choices]
    return bool(reasons) and all(reasons)


def _merge(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a delta to a message: texts are joined, tool calls by their number."""
    for key, value in delta.items():
        if key == "tool_calls":
            _merge_calls(message.setdefault("tool_calls", []), value or [])
        elif key not in ("role", "refusal") and isinstance(value, str):
            message[key] = (message.get(key) or "") + value
        elif value is not None or key not in message:
            message[key] = value


def _merge_calls(calls: list[dict[str, Any]], deltas: Iterable[Mapping[str, Any]]) -> None:
    for delta in deltas:
        index = delta.get("index", len(calls))
        if not 0 <= index <= len(calls) + _MOST_NEW_CALLS:
            raise ValueError(_SHAPE)
        while len(calls) <= index:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[index]
        function = delta.get("function") or {}
        for key in ("name", "arguments"):
            call["function"][key] += function.get(key) or ""
        call.update({key: delta[key] for key in ("id", "type") if delta.get(key)})


def _merge_logprobs(choice: dict[str, Any], new: Any) -> None:
    """Join the lists of a choice's logprobs."""
    if not isinstance(new, dict):
        choice.setdefault("logprobs", None)
        return
    old = choice.get("logprobs") or {}
    choice["logprobs"] = {
        key: (old.get(key) or []) + value if isinstance(value, list) else value
        for key, value in new.items()
    }


def _with_input(block: Mapping[str, Any]) -> dict[str, Any]:
    """A finished content block: a tool's arguments come as pieces of JSON."""
    whole = {key: value for key, value in block.items() if key != "_json"}
    if block.get("_json"):
        try:
            whole["input"] = json.loads(block["_json"])
        except ValueError as error:
            raise ended_early("") from error
    return whole
