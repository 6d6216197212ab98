"""/v1/*, with the unmodified `openai` package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from emulator.faults import Faults
from tests.emulator.helpers import HandWorker, eventually
from tests.gateway.helpers import BRISK, MODEL, TEXT, WORDS, Setup, answer, completion, running, sse

ROUTE = "/v1/completions"
MESSAGES: Any = [{"role": "user", "content": "x"}]


@asynccontextmanager
async def client_of(setup: Setup) -> AsyncIterator[openai.AsyncOpenAI]:
    """The package's client as it is by default: with two retries."""
    url = f"{setup.gateway.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="unused") as client:
        yield client


@asynccontextmanager
async def openai_client() -> AsyncIterator[openai.AsyncOpenAI]:
    async with running(answer) as setup, client_of(setup) as client:
        yield client


async def test_models_are_listed() -> None:
    async with openai_client() as client:
        assert [MODEL] == [model.id async for model in client.models.list()]


async def test_a_completion_is_answered() -> None:
    async with openai_client() as client:
        result = await client.completions.create(model=MODEL, prompt="x")
        assert TEXT == result.choices[0].text


async def test_a_chat_is_answered() -> None:
    async with openai_client() as client:
        result = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert TEXT == result.choices[0].message.content


async def test_a_completion_is_streamed() -> None:
    async with openai_client() as client:
        stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
        assert WORDS == [part.choices[0].text async for part in stream]


async def test_a_chat_is_streamed() -> None:
    async with openai_client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        assert WORDS == [part.choices[0].delta.content async for part in stream]


async def test_an_event_is_passed_on_before_the_job_ends() -> None:
    async with running() as setup, client_of(setup) as client:
        asking = asyncio.create_task(
            client.completions.create(model=MODEL, prompt="x", stream=True)
        )
        job = await setup.worker.take()
        await setup.worker.stream(job["id"], sse(completion(ROUTE, "first")))
        part = await anext(aiter(await asking))
        assert ("first", "IN_PROGRESS") == (part.choices[0].text, setup.jobs[0].status)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (503, openai.InternalServerError),
    ],
)
async def test_a_failed_job_is_the_error_that_fits_and_runs_once(
    status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    async def refuse(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], error="no such thing", output={"status": status})

    async with running(refuse) as setup, client_of(setup) as client:
        with pytest.raises(error, match="no such thing") as raised:
            await client.completions.create(model=MODEL, prompt="x", stream=stream)
        kind = "invalid_request_error" if status < 500 else "server_error"
        fields = {"message": "no such thing", "type": kind, "param": None, "code": status}
        assert (fields, 1) == (raised.value.body, len(setup.jobs))


async def test_a_failure_in_the_middle_is_an_error_event_and_no_done() -> None:
    async def stop(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.stream(job["id"], sse(completion(ROUTE, "first")))
        await worker.done(job["id"], error="the engine died", output={"status": 502})

    async with running(stop) as setup, client_of(setup) as client:
        stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
        with pytest.raises(openai.APIError, match="the engine died"):
            assert ["first"] == [part.choices[0].text async for part in stream]


async def test_a_stream_of_a_worker_that_does_not_stream_is_its_output() -> None:
    async def plain(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], output=completion(ROUTE, TEXT))

    async with running(plain) as setup, client_of(setup) as client:
        stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
        assert [TEXT] == [part.choices[0].text async for part in stream]


async def test_a_stream_without_its_end_is_complete_when_the_job_is() -> None:
    async def no_done(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.stream(job["id"], sse({"type": "response.completed"}))
        await worker.done(job["id"], output={})

    async with running(no_done) as setup:
        url = setup.gateway.url + "/v1/responses"
        async with setup.session.post(url, json={"stream": True}) as response:
            assert sse({"type": "response.completed"}) == await response.text()
            assert "text/event-stream" == response.content_type


async def test_a_stream_that_ended_does_not_cancel_its_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "worker")
    async with running() as setup, client_of(setup) as client:
        asking = asyncio.create_task(
            client.completions.create(model=MODEL, prompt="x", stream=True)
        )
        job = await setup.worker.take()
        await setup.worker.stream(job["id"], sse(completion(ROUTE, "all")) + "data: [DONE]\n\n")
        parts = [part.choices[0].text async for part in await asking]
        assert (["all"], "IN_PROGRESS") == (parts, setup.jobs[0].status)
        await setup.worker.done(job["id"], output={})
        assert "COMPLETED" == setup.jobs[0].status
    assert "/v1/completions COMPLETED" in caplog.text


async def test_a_client_that_hangs_up_in_the_middle_cancels_its_job() -> None:
    async with running() as setup, client_of(setup) as client:
        asking = asyncio.create_task(
            client.completions.create(model=MODEL, prompt="x", stream=True)
        )
        job = await setup.worker.take()
        await setup.worker.stream(job["id"], sse(completion(ROUTE, "first")))
        await (await asking).close()
        assert [job["id"]] == await setup.worker.stops()


async def test_no_worker_within_the_wait_is_a_504_that_is_not_tried_again() -> None:
    async with running(wait=0.2, limits=BRISK) as setup, client_of(setup) as client:
        with pytest.raises(openai.InternalServerError, match="no worker took the job"):
            await client.completions.create(model=MODEL, prompt="x", stream=True)
        await eventually(lambda: ["CANCELLED"] == [job.status for job in setup.jobs])


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with (
        running(api_key="right") as setup,
        running(url=setup.emulator.base) as other,
        client_of(other) as client,
    ):
        with pytest.raises(openai.AuthenticationError, match="RUNPOD_API_KEY"):
            await client.models.list()


async def test_the_clients_key_is_not_sent_on() -> None:
    async with running(answer, api_key="right") as setup, client_of(setup) as client:
        assert TEXT == (await client.completions.create(model=MODEL, prompt="x")).choices[0].text


async def test_what_runpod_did_not_take_may_be_tried_again_by_the_client() -> None:
    faults = Faults(errors={"run": [429]})
    async with running(answer, faults=faults) as setup:
        url = f"{setup.gateway.url}{ROUTE}"
        async with setup.session.post(url, json={"prompt": "x"}) as response:
            assert (503, None) == (response.status, response.headers.get("x-should-retry"))


async def test_a_post_without_a_body_is_not_taken_for_a_get() -> None:
    async def echo(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], output=job["input"])

    async with running(echo) as setup:
        path = "/v1/internal/stop-generation"
        async with setup.session.post(setup.gateway.url + path) as response:
            assert "POST" == (await response.json())["api"]["method"]


async def test_a_path_that_leaves_v1_makes_no_job() -> None:
    async with running() as setup:
        status, body = await setup.post("/v1/a%2F..%2Fb", {"prompt": "x"})
        assert (400, []) == (status, setup.jobs)
        assert "plain path" in json.dumps(body)
