"""A streamed answer becomes the object that the same request without `stream` gives."""

import json
from typing import Any

import pytest

from worker.assemble import Assembler, assembler_for
from worker.errors import EngineBroken, EngineRefused
from worker.events import Event

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HEAD = {"id": "x", "model": "m", "created": 1}


def chunk(*choices: dict[str, Any], **rest: Any) -> Event:
    body = {**HEAD, "object": "chat.completion.chunk", "choices": list(choices), **rest}
    return Event("", json.dumps(body))


def delta(index: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "delta": fields}


def text(piece: str, reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "text": piece, "finish_reason": reason, "logprobs": None}


DONE = Event("", "[DONE]")


def assemble(path: str, *events: Event, stopped: bool = False) -> dict[str, Any]:
    assembler = assembler_for(path, hide_usage=False)
    assert assembler is not None
    for event in events:
        assembler.add(event)
    return assembler.result(stopped=stopped)


def test_chat_texts_are_joined_and_the_usage_kept() -> None:
    result = assemble(
        CHAT,
        chunk(delta(role="assistant", content=None)),
        chunk(delta(content="Hel")),
        chunk(delta(content="lo")),
        chunk(delta(reason="stop")),
        chunk(usage={"completion_tokens": 2}),
        DONE,
    )

    message = {"role": "assistant", "content": "Hello"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    expected = {
        **HEAD,
        "object": "chat.completion",
        "choices": choices,
        "usage": {"completion_tokens": 2},
    }
    assert expected == result


def test_several_choices_are_kept_apart_and_in_order() -> None:
    result = assemble(
        TEXT,
        chunk(text("b1", index=1)),
        chunk(text("a1")),
        chunk(text("b2", "length", index=1)),
        chunk(text("a2", "stop")),
        DONE,
    )

    expected = [("a1a2", "stop"), ("b1b2", "length")]
    assert expected == [(item["text"], item["finish_reason"]) for item in result["choices"]]


def test_reasoning_and_tool_calls_are_assembled() -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"index": 0, "function": function}

    result = assemble(
        CHAT,
        chunk(delta(role="assistant", reasoning_content="I ")),
        chunk(delta(reasoning_content="think")),
        chunk(delta(tool_calls=[{"id": "c1", "type": "function", **call(name="f")}])),
        chunk(delta(tool_calls=[call(arguments='{"a"')])),
        chunk(delta(tool_calls=[call(arguments=": 1}")])),
        chunk(delta(reason="tool_calls")),
        DONE,
    )

    function = {"name": "f", "arguments": '{"a": 1}'}
    expected = {
        "role": "assistant",
        "reasoning_content": "I think",
        "tool_calls": [{"type": "function", "function": function, "id": "c1"}],
    }
    assert expected == result["choices"][0]["message"]


def test_logprobs_are_joined() -> None:
    def part(token: str) -> dict[str, Any]:
        return {**delta(content=token), "logprobs": {"content": [{"token": token}]}}

    result = assemble(CHAT, chunk(part("a")), chunk(part("b")), chunk(delta(reason="stop")), DONE)

    assert {"content": [{"token": "a"}, {"token": "b"}]} == result["choices"][0]["logprobs"]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [DONE],
        [chunk(text("a"))],
        [chunk(text("a")), DONE],
        [chunk(text("a", "stop"))],
        [chunk(text("a", "stop")), chunk(text("b", index=1)), DONE],
    ],
    ids=["nothing", "only done", "no finish", "no finish but done", "no done", "one of two"],
)
def test_a_stream_without_its_end_is_a_failure_with_the_partial_text(events: list[Event]) -> None:
    with pytest.raises(EngineBroken, match="ended early") as caught:
        assemble(TEXT, *events)

    partial = "a" if len(events) and events[0] is not DONE else ""
    assert {"partial": partial} == caught.value.detail


def test_a_stopped_stream_is_complete_as_it_is() -> None:
    result = assemble(TEXT, chunk(text("half")), stopped=True)

    assert [("half", "stop")] == [(c["text"], c["finish_reason"]) for c in result["choices"]]


def test_an_error_event_is_a_failure_with_the_partial_text() -> None:
    error = {"message": "out of memory", "code": 500}
    with pytest.raises(EngineRefused, match="broke off: out of memory") as caught:
        assemble(TEXT, chunk(text("half")), Event("", json.dumps({"error": error})))

    assert {"error": error, "partial": "half"} == caught.value.detail


@pytest.mark.parametrize("data", ["{", "[1]", "7"])
def test_an_event_that_is_not_an_object_is_a_failure(data: str) -> None:
    with pytest.raises(EngineBroken, match="not"):
        assemble(TEXT, Event("", data))


def test_the_usage_event_is_hidden_from_a_client_that_did_not_ask() -> None:
    assembler = assembler_for(CHAT, hide_usage=True)
    assert assembler is not None

    shown = [assembler.add(event) for event in (chunk(delta()), chunk(usage={}), DONE)]

    assert [True, False, True] == shown


def test_an_empty_event_is_kept_from_the_client() -> None:
    assembler = assembler_for(TEXT, hide_usage=False)
    assert assembler is not None

    assert not assembler.add(Event("", "null"))


def typed(kind: str, **fields: Any) -> Event:
    return Event(kind, json.dumps({"type": kind, **fields}))


def test_a_responses_stream_gives_its_last_object() -> None:
    result = assemble(
        "/v1/responses",
        typed("response.created", response={"status": "in_progress"}),
        typed("response.output_text.delta", delta="Hi"),
        typed("response.completed", response={"status": "completed", "id": "r"}),
    )

    assert {"status": "completed", "id": "r"} == result


def test_a_responses_stream_without_its_last_object_is_a_failure() -> None:
    with pytest.raises(EngineBroken, match="ended early"):
        assemble("/v1/responses", typed("response.output_text.delta", delta="Hi"))


MESSAGE = [
    typed("message_start", message={"id": "m", "content": [], "usage": {"input_tokens": 3}}),
    typed("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "He"}),
    typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "y"}),
    typed("content_block_start", index=1, content_block={"type": "tool_use", "name": "f"}),
    typed("content_block_delta", index=1, delta={"partial_json": '{"a"'}),
    typed("content_block_delta", index=1, delta={"partial_json": ": 1}"}),
    typed("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 2}),
]


def test_a_messages_stream_is_assembled() -> None:
    result = assemble("/v1/messages", *MESSAGE, typed("message_stop"))

    expected = {
        "id": "m",
        "content": [
            {"type": "text", "text": "Hey"},
            {"type": "tool_use", "name": "f", "input": {"a": 1}},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 2},
        "stop_reason": "tool_use",
    }
    assert expected == result


def test_a_messages_stream_without_its_stop_is_a_failure() -> None:
    with pytest.raises(EngineBroken, match="ended early"):
        assemble("/v1/messages", *MESSAGE)


def test_other_routes_are_not_streamed() -> None:
    assembler: Assembler | None = assembler_for("/v1/embeddings", hide_usage=True)

    assert assembler is None
