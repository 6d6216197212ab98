"""OpenAI-compatible requests reach the engine untouched and always as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fake_engine import Call, FakeEngine, Script, fake_engine
from worker.client import EngineClient
from worker.errors import EngineBroken
from worker.forward import Forwarder
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots
from worker.stream import Discard

CHAT = "/v1/chat/completions"


class Collect:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.first = asyncio.Event()

    async def put(self, event: Any, size: int) -> None:
        self.events.append(event)
        self.first.set()


def post(path: str, **body: Any) -> Request:
    return Request("POST", path, body, blocking=False, stream=body.get("stream", False))


def sse(*chunks: Any) -> bytes:
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def piece(text: str, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}


USAGE = {"choices": [], "usage": {"completion_tokens": 2}}


async def streams(call: Call) -> None:
    await call.begin_stream()
    await call.raw(sse(piece("a"), piece("b", "stop"), USAGE, "[DONE]"))


async def breaks_off(call: Call) -> None:
    await call.begin_stream()
    await call.raw(sse(piece("a")))


async def never_ends(call: Call) -> None:
    await call.begin_stream()
    await call.raw(sse(piece("a")))
    await call.gone()


@asynccontextmanager
async def forwarder(script: Script, slots: Slots) -> AsyncIterator[tuple[Forwarder, FakeEngine]]:
    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        try:
            yield Forwarder(client, slots), engine
        finally:
            await client.close()


async def test_a_plain_request_is_streamed_upstream_and_assembled() -> None:
    async with forwarder(streams, Slots(1)) as (forward, engine):
        sink = Collect()
        result = await forward.answer(post(CHAT, seed=1), sink, Progress())

    sent = {"seed": 1, "stream": True, "stream_options": {"include_usage": True}}
    assert (sent, "ab", []) == (
        engine.calls[0].body,
        result["choices"][0]["message"]["content"],
        sink.events,
    )


async def test_a_streamed_request_hands_on_every_event_but_the_usage_nobody_asked_for() -> None:
    async with forwarder(streams, Slots(1)) as (forward, _):
        sink = Collect()
        await forward.answer(post(CHAT, stream=True), sink, Progress())

    assert sse(piece("a"), piece("b", "stop"), "[DONE]").decode() == "".join(sink.events)


async def test_the_usage_is_handed_on_to_those_who_asked() -> None:
    async with forwarder(streams, Slots(1)) as (forward, _):
        sink = Collect()
        asked = post(CHAT, stream=True, stream_options={"include_usage": True})
        await forward.answer(asked, sink, Progress())

    assert sse(piece("a"), piece("b", "stop"), USAGE, "[DONE]").decode() == "".join(sink.events)


async def test_a_stream_that_ends_early_is_an_error_with_the_partial_text() -> None:
    async with forwarder(breaks_off, Slots(1)) as (forward, _):
        with pytest.raises(EngineBroken, match="ended early") as caught:
            await forward.answer(post(CHAT), Discard(), Progress())

    assert {"partial": "a"} == caught.value.detail


async def test_stop_ends_a_stream_with_what_there_is() -> None:
    slots = Slots(1)
    async with forwarder(never_ends, slots) as (forward, _):
        sink = Collect()
        task = asyncio.create_task(forward.answer(post(CHAT, stream=True), sink, Progress()))
        await asyncio.wait_for(sink.first.wait(), 5)
        slots.stop_all()
        result = await asyncio.wait_for(task, 5)

    choice = result["choices"][0]
    assert ("a", "stop", "data: [DONE]\n\n") == (
        choice["message"]["content"],
        choice["finish_reason"],
        sink.events[-1],
    )


async def test_a_cancelled_request_frees_its_slot() -> None:
    slots = Slots(1)
    async with forwarder(never_ends, slots) as (forward, _):
        sink = Collect()
        task = asyncio.create_task(forward.answer(post(CHAT, stream=True), sink, Progress()))
        await asyncio.wait_for(sink.first.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert 0 == slots.busy


async def test_a_get_is_a_get() -> None:
    async def models(call: Call) -> None:
        await call.answer({"data": []})

    async with forwarder(models, Slots(1)) as (forward, engine):
        request = Request("GET", "/v1/models", {}, blocking=False, stream=False)
        answer = await forward.answer(request, Discard(), Progress())

    assert ({"data": []}, "GET", "/v1/models") == (
        answer,
        engine.calls[0].method,
        engine.calls[0].path,
    )


async def test_other_routes_are_posted_as_they_are() -> None:
    async def embeddings(call: Call) -> None:
        await call.answer({"data": [[1]]})

    async with forwarder(embeddings, Slots(1)) as (forward, engine):
        await forward.answer(post("/v1/embeddings", input="x"), Discard(), Progress())

    assert {"input": "x"} == engine.calls[0].body
