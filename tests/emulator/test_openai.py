"""The OpenAI route, with the unmodified `openai` package and a worker that speaks its dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from emulator.openai_api import unwrap
from emulator.server import Emulator, running_emulator
from tests.emulator.helpers import (
    FAST,
    Client,
    HandWorker,
    client_session,
    hand_worker,
    open_polls,
    serving,
)

MODELS = {
    "object": "list",
    "data": [{"id": "tiny", "object": "model", "created": 1, "owned_by": "me"}],
}


def completion(text: str, kind: str = "text_completion") -> dict[str, Any]:
    """Make a completion with one choice."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if kind == "text_completion":
        choice["text"] = text
    else:
        key = "delta" if kind == "chat.completion.chunk" else "message"
        choice[key] = {"role": "assistant", "content": text}
    return {"id": "c", "object": kind, "created": 1, "model": "tiny", "choices": [choice]}


def sse(value: Any) -> str:
    """Make one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


async def answer(worker: HandWorker, job: dict[str, Any]) -> None:
    """Do what an OpenAI worker does."""
    route, body = job["input"]["openai_route"], job["input"].get("openai_input")
    if route == "/v1/models":
        output: Any = MODELS if body is None else {"error": "a GET has no body"}
    elif route == "/v1/embeddings":
        item = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        output = {"object": "list", "data": [item], "model": "tiny", "usage": usage}
    elif body.get("stream"):
        kind = "chat.completion.chunk" if "chat" in route else "text_completion"
        words = ["Hel", "lo ", "wörld"]
        await worker.stream(job["id"], sse(completion(words[0], kind)))
        await worker.stream(job["id"], "".join(sse(completion(word, kind)) for word in words[1:]))
        await worker.stream(job["id"], "data: [DONE]\n\n")
        output = completion("Hello wörld", kind)
    else:
        output = [completion("Hello", "chat.completion" if "chat" in route else "text_completion")]
    await worker.done(job["id"], output=output)


@asynccontextmanager
async def openai_client(emulator: Emulator) -> AsyncIterator[openai.AsyncOpenAI]:
    """Make the package's client."""
    url = f"{emulator.base}/openai/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0) as client:
        yield client


@asynccontextmanager
async def openai_endpoint() -> AsyncIterator[openai.AsyncOpenAI]:
    """Run an emulator, a worker behind it and a client before it."""
    async with (
        running_emulator(api_key="key") as emulator,
        hand_worker(emulator) as worker,
        serving(worker, answer),
        openai_client(emulator) as client,
    ):
        yield client


async def test_models_are_listed() -> None:
    async with openai_endpoint() as client:
        assert ["tiny"] == [model.id async for model in client.models.list()]


async def test_a_completion_is_answered() -> None:
    async with openai_endpoint() as client:
        result = await client.completions.create(model="tiny", prompt="x")
        assert "Hello" == result.choices[0].text


async def test_a_chat_is_answered() -> None:
    async with openai_endpoint() as client:
        messages: Any = [{"role": "user", "content": "x"}]
        result = await client.chat.completions.create(model="tiny", messages=messages)
        assert "Hello" == result.choices[0].message.content


async def test_embeddings_are_answered() -> None:
    async with openai_endpoint() as client:
        result = await client.embeddings.create(model="tiny", input="x", encoding_format="float")
        assert [0.5, 0.25] == result.data[0].embedding


async def test_a_completion_is_streamed() -> None:
    async with openai_endpoint() as client:
        stream = await client.completions.create(model="tiny", prompt="x", stream=True)
        assert ["Hel", "lo ", "wörld"] == [part.choices[0].text async for part in stream]


async def test_a_chat_is_streamed() -> None:
    async with openai_endpoint() as client:
        messages: Any = [{"role": "user", "content": "x"}]
        stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
        assert ["Hel", "lo ", "wörld"] == [part.choices[0].delta.content async for part in stream]


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with openai_endpoint() as client:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"error": "no such model", "output": {"status": 404}}, 404),
        ({"error": "no such model"}, 500),
        ({"error": "no such model", "output": {"status": 200}}, 500),
        ({"error": "no such model", "output": {"status": True}}, 500),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_an_http_error_with_the_workers_status(
    result: dict[str, Any],
    status: int,
    stream: bool,
) -> None:
    async def fail(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], **result)

    async with (
        running_emulator() as emulator,
        hand_worker(emulator) as worker,
        serving(worker, fail),
        openai_client(emulator) as client,
    ):
        with pytest.raises(openai.APIStatusError, match="no such model") as error:
            await client.completions.create(model="tiny", prompt="x", stream=stream)
        assert status == error.value.status_code


async def test_a_failure_in_the_middle_is_an_error_event_and_no_done() -> None:
    async with (
        running_emulator() as emulator,
        hand_worker(emulator) as worker,
        client_session(emulator) as client,
    ):
        asking = asyncio.create_task(stream_text(client))
        job = await worker.take()
        await worker.stream(job["id"], sse({"a": 1}))
        await worker.done(job["id"], error="the engine died", output={"status": 502})
        error = {"message": "the engine died", "type": "server_error", "code": 502}
        assert sse({"a": 1}) + sse({"error": error}) == await asking


async def test_a_worker_that_dies_in_the_middle_ends_the_stream_with_an_error() -> None:
    async with (
        running_emulator() as emulator,
        hand_worker(emulator) as worker,
        client_session(emulator) as client,
    ):
        asking = asyncio.create_task(stream_text(client))
        job = await worker.take()
        await worker.stream(job["id"], "data: 1\n\n")
        emulator.endpoint.retire("hand")
        assert "the worker stopped in the middle" in await asking
        assert "CANCELLED" == emulator.jobs[job["id"]].status


async def test_an_event_is_passed_on_before_the_job_ends() -> None:
    async with (
        running_emulator() as emulator,
        hand_worker(emulator) as worker,
        client_session(emulator) as client,
    ):
        body = json.dumps({"stream": True})
        url = f"{emulator.base}/openai/v1/completions"
        asking = asyncio.create_task(client.session.post(url, data=body).__aenter__())
        job = await worker.take()
        await worker.stream(job["id"], "data: 1\n\n")
        response = await asking
        assert b"data: 1\n\n" == await response.content.readany()
        assert "text/event-stream" == response.content_type
        response.close()


async def test_a_worker_that_streams_nothing_answers_with_its_output() -> None:
    async def finish(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], output=["data: 1\n\n", "data: [DONE]\n\n"])

    async with (
        running_emulator() as emulator,
        hand_worker(emulator) as worker,
        serving(worker, finish),
        client_session(emulator) as client,
    ):
        assert "data: 1\n\ndata: [DONE]\n\n" == await stream_text(client)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("started", [False, True])
async def test_a_client_that_hangs_up_cancels_its_job(stream: bool, started: bool) -> None:
    async with (
        running_emulator(limits=FAST) as emulator,
        hand_worker(emulator) as worker,
        client_session(emulator) as client,
    ):
        body = {"stream": stream}
        asking = asyncio.create_task(client.post("/openai/v1/completions", body))
        job = await worker.take()
        if stream and started:
            await worker.stream(job["id"], "data: 1\n\n")
        stops = asyncio.create_task(worker.stops())
        await open_polls(emulator, 1)
        asking.cancel()
        assert [job["id"]] == await stops
        assert "CANCELLED" == emulator.jobs[job["id"]].status


@pytest.mark.parametrize(
    ("output", "expected"), [([{"a": 1}], {"a": 1}), ([1, 2], [1, 2]), ({"a": 1}, {"a": 1})]
)
def test_one_element_of_a_generator_worker_is_taken_out(output: Any, expected: Any) -> None:
    assert expected == unwrap(output)


async def stream_text(client: Client) -> str:
    """Ask for a stream; its whole text."""
    url = client.base + "/openai/v1/completions"
    async with client.session.post(url, data=json.dumps({"stream": True})) as response:
        text: str = await response.text()
        return text
