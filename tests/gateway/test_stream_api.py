"""The websockets, with the unmodified `websockets` package and with aiohttp's client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
import websockets

from tests.emulator.helpers import HandWorker, eventually
from tests.gateway.helpers import BRISK, TEXT, WORDS, Setup, answer, fail, history, running

STREAM = "/api/v1/stream"
REQUEST = {"prompt": "The capital of France is", "max_new_tokens": 8}
EMPTY: dict[str, list[Any]] = {"internal": [], "visible": []}


async def frames(socket: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Send one message and read until stream_end, as the scripts in api-examples do."""
    await socket.send(json.dumps(request))
    got: list[dict[str, Any]] = []
    while not got or got[-1]["event"] != "stream_end":
        got.append(json.loads(await socket.recv()))
    return got


def connect(setup: Setup, path: str = STREAM, **options: Any) -> websockets.connect:
    return websockets.connect(setup.gateway.stream_url + path, **options)


async def closed_with(socket: Any) -> tuple[int, str]:
    """The code and reason that the gateway closes with."""
    with pytest.raises(websockets.ConnectionClosed):
        await socket.recv()
    return socket.close_code, socket.close_reason


async def test_api_example_stream_gets_the_frames_as_recorded() -> None:
    async with running(answer) as setup, connect(setup, ping_interval=None) as socket:
        texts = [
            {"event": "text_stream", "message_num": number, "text": text}
            for number, text in enumerate(["", *WORDS])
        ]
        end = {"event": "stream_end", "message_num": len(texts)}
        assert [*texts, end] == await frames(socket, REQUEST)


async def test_api_example_chat_stream_gets_histories() -> None:
    request = {"user_input": "Hi", "history": EMPTY}
    async with running(answer) as setup, connect(setup, "/api/v1/chat-stream") as socket:
        got = await frames(socket, request)
    assert [0, 1, 2] == [frame["message_num"] for frame in got]
    assert history(request, TEXT) == got[-2]["history"]


async def test_one_connection_takes_several_messages() -> None:
    async with running(answer) as setup, connect(setup) as socket:
        assert await frames(socket, REQUEST) == await frames(socket, REQUEST)


async def test_messages_that_are_sent_at_once_are_answered_in_turn() -> None:
    async with running(answer) as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        first = await frames(socket, REQUEST)
        assert first == [json.loads(await socket.recv()) for _ in first]


async def test_too_many_messages_at_once_are_refused() -> None:
    async with running() as setup, connect(setup) as socket:
        for _ in range(12):
            await socket.send(json.dumps(REQUEST))
        code, reason = await closed_with(socket)
        assert (1011, True) == (code, reason.startswith("too many requests"))


async def test_a_frame_is_passed_on_before_the_job_ends() -> None:
    async with running() as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        job = await setup.worker.take()
        frame = {"event": "text_stream", "message_num": 0, "text": "first"}
        await setup.worker.stream(job["id"], frame)
        got = [json.loads(await socket.recv())["text"] for _ in range(2)]
        assert (["", "first"], "IN_PROGRESS") == (got, setup.jobs[0].status)


async def test_a_ping_is_answered_while_a_job_runs() -> None:
    async with running() as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        await setup.worker.take()
        pong = await socket.ping()
        assert 0 <= await asyncio.wait_for(pong, 5)


async def test_a_client_that_closes_cancels_its_job() -> None:
    async with running() as setup:
        async with connect(setup) as socket:
            await socket.send(json.dumps(REQUEST))
            job = await setup.worker.take()
        assert [job["id"]] == await setup.worker.stops()


async def test_a_client_that_vanishes_cancels_its_job() -> None:
    async with running() as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        job = await setup.worker.take()
        socket.transport.abort()
        assert [job["id"]] == await setup.worker.stops()


async def test_a_stream_that_ended_does_not_cancel_its_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "worker"):
        async with running() as setup:
            async with connect(setup) as socket:
                await socket.send(json.dumps(REQUEST))
                job = await setup.worker.take()
                await setup.worker.stream(job["id"], {"event": "stream_end", "message_num": 0})
                got = [json.loads(await socket.recv())["event"] for _ in range(2)]
            await setup.worker.done(job["id"], output={})
            assert (["text_stream", "stream_end"], "COMPLETED") == (got, setup.jobs[0].status)
    assert "/generate COMPLETED" in caplog.text


async def test_a_failed_job_closes_with_1011_and_the_reason() -> None:
    async with running(fail) as setup, connect(setup) as socket:
        await socket.send("{}")
        assert (1011, "the prompt is missing; send one") == await closed_with(socket)


@pytest.mark.parametrize("start", ["", "x"])
async def test_a_long_reason_is_cut_to_whole_characters(start: str) -> None:
    async def wordy(worker: HandWorker, job: dict[str, Any]) -> None:
        await worker.done(job["id"], error=start + "ä" * 300)

    async with running(wordy) as setup, connect(setup) as socket:
        await socket.send("{}")
        assert (1011, start + "ä" * 61) == await closed_with(socket)


@pytest.mark.parametrize("message", ["{bad", "[]", b"\xff"])
async def test_a_malformed_message_closes_with_1011(message: str | bytes) -> None:
    async with running() as setup, connect(setup) as socket:
        await socket.send(message)
        assert (1011, []) == ((await closed_with(socket))[0], setup.jobs)


async def test_a_lost_part_closes_with_1011_and_cancels_the_job() -> None:
    async with running() as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        job = await setup.worker.take()
        frame = {"event": "text_stream", "message_num": 1, "text": "second"}
        await setup.worker.stream(job["id"], frame)
        code, reason = await closed_with(socket)
        assert (1011, True) == (code, "lost" in reason)
        assert [job["id"]] == await setup.worker.stops()


async def test_a_worker_that_dies_in_the_middle_closes_with_1011() -> None:
    async with running(limits=BRISK) as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        job = await setup.worker.take()
        frame = {"event": "text_stream", "message_num": 0, "text": "first"}
        await setup.worker.stream(job["id"], frame)
        for _ in range(2):
            await socket.recv()
        setup.emulator.endpoint.retire("hand")
        code, reason = await closed_with(socket)
        assert (1011, True) == (code, "in the middle" in reason)


async def test_no_worker_within_the_wait_closes_with_1011() -> None:
    async with running(wait=0.2, limits=BRISK) as setup, connect(setup) as socket:
        await socket.send(json.dumps(REQUEST))
        code, reason = await closed_with(socket)
        assert (1011, True) == (code, reason.startswith("no worker took the job"))
        await eventually(lambda: "CANCELLED" == setup.jobs[0].status)


async def test_a_message_over_the_platforms_limit_closes_with_1009() -> None:
    async with running() as setup, connect(setup) as socket:
        with contextlib.suppress(websockets.ConnectionClosed):  # it may close before it is sent
            await socket.send("x" * 10_000_001)
        await socket.wait_closed()
        assert (1009, []) == (socket.close_code, setup.jobs)


async def test_an_unknown_path_closes_with_1000() -> None:
    async with running() as setup, connect(setup, "/no/such") as socket:
        assert 1000 == (await closed_with(socket))[0]


async def test_a_page_that_may_not_call_gets_no_websocket() -> None:
    async with running(origin="http://localhost:8000") as setup:
        with pytest.raises(websockets.InvalidStatus) as error:
            await connect(setup, additional_headers={"Origin": "http://page.example"})
        assert 403 == error.value.response.status_code


async def test_plain_http_is_told_which_port_is_which() -> None:
    async with running() as setup:
        url = setup.gateway.stream_url.replace("ws:", "http:") + STREAM
        async with setup.session.get(url) as response:
            assert 426 == response.status


async def test_oobabots_exchange_works() -> None:
    """It opens a socket to see that there is one, then one for each prompt."""
    async with running(answer) as setup:
        url = setup.gateway.stream_url + STREAM
        async with setup.session.ws_connect(url):
            pass
        async with setup.session.ws_connect(url) as socket:
            await socket.send_json(REQUEST)
            text = ""
            while (frame := (await socket.receive()).json())["event"] != "stream_end":
                text += frame["text"]
    assert (TEXT, 1) == (text, len(setup.jobs))
