"""Whatever the engine does on the wire, the caller gets JSON or one clear error."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.fake_engine import Call, fake_engine
from worker.client import EngineClient, encode_body
from worker.errors import EngineBroken, EngineDown, EngineRefused, InvalidJob, JobError, TooLarge
from worker.events import Event
from worker.slots import Stop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def raw(data: bytes) -> Any:
    async def script(call: Call) -> None:
        await call.raw(data)

    return script


def says(body: Any, status: int = 200, kind: str = "application/json") -> Any:
    async def script(call: Call) -> None:
        await call.answer(body, status=status, kind=kind)

    return script


async def test_json_is_returned_as_it_is() -> None:
    async with fake_engine(says({"a": ["日本", None]})) as engine:
        client = EngineClient(engine.port)
        answer = await client.json("POST", "/x", {"q": "🎉"})
        await client.close()

    assert ({"a": ["日本", None]}, {"q": "🎉"}) == (answer, engine.calls[0].body)


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (raw(b""), EngineBroken, "broke off"),
        (raw(b"\x00\x01rubbish\r\n\r\n"), EngineBroken, "broke off"),
        (raw(HEAD + b"Content-Length: 100\r\n\r\n{"), EngineBroken, "broke off"),
        (raw(HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), EngineBroken, "broke off"),
        (raw(HEAD + b"Content-Length: 0\r\n\r\n"), EngineBroken, "an empty answer"),
        (says(b'{"half": '), EngineBroken, "not JSON"),
        (says(b"<html>", kind="text/html"), EngineBroken, "not JSON"),
        (says(b"\xff\xfe{}"), EngineBroken, "not JSON"),
        (says(b"[" * 100_000), EngineBroken, "not JSON"),
        (says({}, 302), EngineBroken, "redirect"),
        (says(b"x" * 20_000_001), TooLarge, "20000000 bytes"),
        (says({"error": {"message": "bad"}}, 400), EngineRefused, "refused the request: bad"),
        (says({"error": "bad"}, 422), EngineRefused, "refused the request: bad"),
        (says({"detail": [{"loc": ["body", "n"], "msg": "int"}]}, 422), EngineRefused, "n: int"),
        (says(b"Internal Server Error", 500, "text/plain"), EngineRefused, "status 500"),
        (says({"error": {"message": "Loading model"}}, 503), EngineDown, "Loading model"),
    ],
)
async def test_every_oddity_is_one_clear_error(
    script: Any, error: type[JobError], text: str
) -> None:
    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(error, match=text):
            await client.json("POST", "/x", {})
        await client.close()


async def test_the_engines_error_object_is_the_detail_and_its_status_the_status() -> None:
    body = {"error": {"message": "no", "code": 7}}
    async with fake_engine(says(body, 418)) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(EngineRefused) as caught:
            await client.json("GET", "/x")
        await client.close()

    assert (418, body) == (caught.value.status, caught.value.detail)


async def test_a_prompt_over_the_context_names_both_lengths() -> None:
    error = {"type": "exceed_context_size_error", "n_prompt_tokens": 3000, "n_ctx": 2048}
    async with fake_engine(says({"error": error}, 400)) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(EngineRefused, match="3000 tokens and the context holds 2048"):
            await client.json("POST", "/x", {})
        await client.close()


async def test_nobody_listening_is_an_engine_that_is_down() -> None:
    async with fake_engine(raw(b"")) as engine:
        pass
    client = EngineClient(engine.port)
    with pytest.raises(EngineDown, match="does not answer"):
        await client.json("GET", "/x")
    await client.close()


async def test_events_come_as_they_are_sent() -> None:
    async def script(call: Call) -> None:
        await call.begin_stream()
        await call.raw("data: 日\n\ndata: b".encode())
        await call.raw(b"\n\n")

    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        events = [event async for event in client.events("/x", {}, Stop())]
        await client.close()

    assert [Event("", "日"), Event("", "b")] == events


async def test_a_stream_that_is_cut_inside_a_chunk_is_broken() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    cut = b"Transfer-Encoding: chunked\r\n\r\n20\r\ndata: a\n\n"
    async with fake_engine(raw(head + cut)) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(EngineBroken, match="broke off"):
            _ = [event async for event in client.events("/x", {}, Stop())]
        await client.close()


async def test_an_error_in_place_of_a_stream_is_that_error() -> None:
    async with fake_engine(says({"error": {"message": "bad"}}, 400)) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(EngineRefused, match="bad"):
            _ = [event async for event in client.events("/x", {}, Stop())]
        await client.close()


async def test_json_in_place_of_a_stream_is_broken() -> None:
    async with fake_engine(says({"choices": []})) as engine:
        client = EngineClient(engine.port)
        with pytest.raises(EngineBroken, match="did not stream"):
            _ = [event async for event in client.events("/x", {}, Stop())]
        await client.close()


async def endless(call: Call) -> None:
    await call.begin_stream()
    await call.raw(b"data: a\n\n")
    await call.gone()
    call.hung_up.set()


async def test_a_requested_stop_ends_the_stream_quietly_and_hangs_up() -> None:
    stop = Stop()
    async with fake_engine(endless) as engine:
        client = EngineClient(engine.port)
        seen = []
        async for event in client.events("/x", {}, stop):
            seen.append(event.data)
            stop.request()
        await asyncio.wait_for(engine.calls[0].hung_up.wait(), 5)
        await client.close()

    assert ["a"] == seen


async def test_a_cancelled_reader_hangs_up_on_the_engine() -> None:
    first = asyncio.Event()

    async def read(client: EngineClient) -> None:
        async with aclosing(client.events("/x", {}, Stop())) as events:
            async for _ in events:
                first.set()

    async with fake_engine(endless) as engine:
        client = EngineClient(engine.port)
        task = asyncio.create_task(read(client))
        await asyncio.wait_for(first.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(engine.calls[0].hung_up.wait(), 5)
        await client.close()


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": "\ud83d"}])
def test_a_body_that_is_not_json_is_refused(body: Any) -> None:
    with pytest.raises(InvalidJob, match="not valid JSON"):
        encode_body(body)


def test_a_body_over_the_platforms_limit_is_refused() -> None:
    with pytest.raises(TooLarge, match="20000000"):
        encode_body({"prompt": "x" * 20_000_000})
