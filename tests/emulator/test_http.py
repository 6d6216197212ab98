"""Clients and workers over HTTP; the worker is driven by the test."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from emulator.faults import Faults
from emulator.limits import Limits
from emulator.server import running_emulator
from emulator.web import deliver, hung_up
from tests.emulator.helpers import (
    FAST,
    Client,
    HandWorker,
    client_session,
    echo,
    eventually,
    hand_worker,
    open_polls,
    serving,
)


async def test_run_answers_an_id_and_status_the_result() -> None:
    async with running_emulator() as emulator, client_session(emulator) as client:
        status, queued = await client.post("/run", {"input": {"a": 1}})
        assert (200, {"id": queued["id"], "status": "IN_QUEUE"}) == (status, queued)
        async with hand_worker(emulator) as worker:
            job = await worker.take()
            assert 200 == await worker.done(job["id"], output={"b": 2})
        _, answer = await client.get(f"/status/{job['id']}")
        assert isinstance(answer.pop("delayTime"), int)
        assert isinstance(answer.pop("executionTime"), int)
        expected = {"id": job["id"], "status": "COMPLETED", "workerId": "hand", "output": {"b": 2}}
        assert expected == answer


async def test_runsync_waits_for_the_result() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
        serving(worker, echo),
    ):
        _, answer = await client.post("/runsync", {"input": {"a": 1}})
        assert ("COMPLETED", {"echo": {"a": 1}}) == (answer["status"], answer["output"])


async def test_runsync_answers_the_status_when_its_wait_is_over() -> None:
    async with running_emulator(limits=FAST) as emulator, client_session(emulator) as client:
        _, answer = await client.post("/runsync?wait=60", {"input": {}})
        assert ("IN_QUEUE", True) == (answer["status"], answer["id"].startswith("sync-"))


async def test_a_client_that_hangs_up_on_runsync_does_not_cancel_its_job() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        asking = asyncio.create_task(client.post("/runsync", {"input": {}}))
        job = await worker.take()
        asking.cancel()
        await asyncio.wait({asking})
        await worker.done(job["id"], output=1)
        assert "COMPLETED" == (await client.get(f"/status/{job['id']}"))[1]["status"]


@pytest.mark.parametrize("path", ["/status/x", "/stream/x", "/status-sync/x"])
async def test_an_unknown_job_is_404(path: str) -> None:
    async with running_emulator() as emulator, client_session(emulator) as client:
        assert 404 == (await client.get(path))[0]


@pytest.mark.parametrize(
    ("path", "size"), [("/run", 10_000_000), ("/runsync", 20_000_000), ("/openai/v1/x", 20_000_000)]
)
async def test_a_request_over_the_documented_size_is_refused(path: str, size: int) -> None:
    async with running_emulator() as emulator, client_session(emulator) as client:
        body = b'{"input": "' + b"x" * size + b'"}'
        assert 400 == (await client.post(path, body))[0]


async def test_a_request_of_just_the_documented_size_is_taken() -> None:
    async with running_emulator() as emulator, client_session(emulator) as client:
        body = b'{"input": "' + b"x" * (10_000_000 - 13) + b'"}'
        assert 200 == (await client.post("/run", body))[0]


async def test_a_result_over_20_mb_is_refused_and_the_job_goes_on() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        assert 400 == await worker.done(job_id, output="x" * 20_000_000)
        assert "IN_PROGRESS" == emulator.jobs[job_id].status


@pytest.mark.parametrize("body", [b"{", b'{"output": NaN}', b"[]"])
async def test_a_result_that_is_not_json_is_refused(body: bytes) -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        assert 400 == await worker.done_raw(job_id, body)
        assert "IN_PROGRESS" == emulator.jobs[job_id].status


async def test_half_a_surrogate_pair_passes_as_the_escape_it_came_as() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        await worker.done_raw(job_id, b'{"output": "\\ud83d"}')
        async with client.session.get(f"{emulator.base}/status/{job_id}") as response:
            assert b'"output": "\\ud83d"' in await response.read()


async def test_an_error_makes_a_job_failed_and_its_output_stays() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        await worker.done(job_id, error="no", output={"status": 404})
        _, answer = await client.get(f"/status/{job_id}")
        assert ("FAILED", "no", {"status": 404}) == (
            answer["status"],
            answer["error"],
            answer["output"],
        )


async def test_progress_is_shown_while_the_job_runs() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        await worker.done(job_id, status="IN_PROGRESS", output="half")
        _, answer = await client.get(f"/status/{job_id}")
        assert ("IN_PROGRESS", "half") == (answer["status"], answer["output"])


async def test_the_first_final_answer_wins() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        statuses = [await worker.done(job_id, output=number) for number in (1, 2)]
        _, answer = await client.get(f"/status/{job_id}")
        assert ([200, 200], 1) == (statuses, answer["output"])


async def test_the_result_of_another_worker_is_ignored() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator, "first") as first,
        hand_worker(emulator, "second") as second,
    ):
        job_id = await client.run()
        await first.take()
        emulator.endpoint.retire("first")
        await second.take()
        assert 200 == await first.done(job_id, output="late")
        assert "IN_PROGRESS" == emulator.jobs[job_id].status


async def test_a_batch_is_a_list_of_what_waits() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        ids = [await client.run() for _ in range(3)]
        assert ids == [job["id"] for job in await worker.take_batch(5)]


async def test_polls_without_news_end_with_204() -> None:
    limits = replace(FAST, poll=0.05)
    async with running_emulator(limits=limits) as emulator, hand_worker(emulator) as worker:
        assert (None, None, None) == (
            await worker.take(),
            await worker.take_batch(2),
            await worker.stops(),
        )


async def test_a_job_is_not_lost_on_a_worker_that_hung_up_its_poll() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        asking = asyncio.create_task(worker.take())
        await open_polls(emulator, 1)
        asking.cancel()
        job_id = await client.run()
        job = await worker.take()
        assert (job_id, 1) == (job["id"], emulator.jobs[job_id].tries)


async def test_an_answer_that_nobody_is_there_to_read_is_undone() -> None:
    asked, undone = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.set()
        await eventually(lambda: hung_up(request))
        return await deliver(request, web.Response(), undone.set)

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/").__aenter__())
            await asked.wait()
            asking.cancel()
            await asyncio.wait_for(undone.wait(), 5)
    finally:
        await runner.cleanup()


async def test_a_stop_signal_reaches_a_worker_that_waits_for_it() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        asking = asyncio.create_task(worker.stops())
        status, answer = await client.post(f"/cancel/{job_id}")
        assert (200, {"id": job_id, "status": "CANCELLED"}) == (status, answer)
        assert [job_id] == await asking


async def test_a_stop_signal_does_not_end_the_same_workers_job_poll() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        first = await client.run()
        await worker.take()
        asking = asyncio.create_task(worker.take())
        await open_polls(emulator, 1)
        await client.post(f"/cancel/{first}")
        second = await client.run()
        assert second == (await asking)["id"]


async def test_a_job_over_its_execution_timeout_is_timed_out_and_stopped() -> None:
    async with (
        running_emulator(limits=FAST) as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run(policy={"executionTimeout": 60})
        await worker.take()
        assert [job_id] == await worker.stops()
        assert "TIMED_OUT" == (await client.get(f"/status/{job_id}"))[1]["status"]


async def test_a_status_with_ttl_deletes_the_job_after_it() -> None:
    async with running_emulator(limits=FAST) as emulator, client_session(emulator) as client:
        job_id = await client.run()
        await client.get(f"/status/{job_id}?ttl=1")
        assert 404 == (await client.get(f"/status-sync/{job_id}"))[0]


async def test_a_stream_is_read_once_and_waits_for_news() -> None:
    async with (
        running_emulator(limits=FAST) as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        reading = asyncio.create_task(client.get(f"/stream/{job_id}"))
        await worker.stream(job_id, "a")
        assert (200, {"status": "IN_PROGRESS", "stream": [{"output": "a"}]}) == await reading
        await worker.stream(job_id, "b")
        await worker.stream(job_id, {"c": 1})
        await worker.done(job_id, output=["a", "b"])
        answers = [(await client.get(f"/stream/{job_id}"))[1] for _ in range(2)]
        assert [
            {"status": "COMPLETED", "stream": [{"output": "b"}, {"output": {"c": 1}}]},
            {"status": "COMPLETED", "stream": []},
        ] == answers


async def test_a_failed_job_can_be_retried_over_http() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        await worker.done(job_id, error="no")
        assert (200, {"id": job_id, "status": "IN_QUEUE"}) == await client.post(f"/retry/{job_id}")
        assert job_id == (await worker.take())["id"]


async def test_purge_tells_how_many_were_removed() -> None:
    async with running_emulator() as emulator, client_session(emulator) as client:
        for _ in range(2):
            await client.run()
        expected = (200, {"removed": 2, "status": "completed"})
        assert expected == await client.post("/purge-queue")


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ("Bearer wrong", 401), ("Bearer secret", 200), ("secret", 200)],
)
async def test_clients_need_the_key_when_one_is_set(header: str | None, status: int) -> None:
    async with running_emulator(api_key="secret") as emulator, aiohttp.ClientSession() as session:
        headers = {"Authorization": header} if header else {}
        async with session.get(f"{emulator.base}/health", headers=headers) as response:
            assert status == response.status


async def test_workers_need_the_workers_key() -> None:
    async with running_emulator() as emulator, aiohttp.ClientSession() as session:
        worker = HandWorker(session, emulator.base)
        assert [401, 401] == [await worker.done("x"), await worker.stream("x", "a")]


async def test_rates_are_limited_when_asked_for() -> None:
    async with (
        running_emulator(rate_limits=True) as emulator,
        client_session(emulator) as client,
    ):
        statuses = [(await client.post("/purge-queue"))[0] for _ in range(5)]
        assert 429 in statuses


async def test_errors_that_were_asked_for_come_in_their_order_and_then_no_more() -> None:
    faults = Faults(errors={"health": [500, 503]})
    async with running_emulator(faults=faults) as emulator, client_session(emulator) as client:
        assert [500, 503, 200] == [(await client.get("/health"))[0] for _ in range(3)]


async def test_a_delay_holds_the_answer_back_and_not_the_deed() -> None:
    faults = Faults(delays={"job-stream": 30.0})
    async with (
        running_emulator(faults=faults, limits=FAST) as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        posting = asyncio.create_task(worker.stream(job_id, "a"))
        _, answer = await client.get(f"/stream/{job_id}")
        assert ([{"output": "a"}], False) == (answer["stream"], posting.done())
        posting.cancel()
        await asyncio.wait({posting})


async def test_an_observer_sees_each_request_with_its_operation() -> None:
    seen: list[str] = []
    async with (
        running_emulator(observer=lambda operation, _: seen.append(operation)) as emulator,
        client_session(emulator) as client,
    ):
        await client.run()
        await client.get("/health")
    assert ["run", "health"] == seen


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (2, 3), (5, 3)])
async def test_a_webhook_is_told_the_answer_with_two_more_tries(failures: int, calls: int) -> None:
    bodies: list[dict[str, Any]] = []
    enough = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        if len(bodies) == calls:
            enough.set()
        return web.Response(status=500 if len(bodies) <= failures else 200)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with (
            running_emulator(limits=FAST) as emulator,
            client_session(emulator) as client,
            hand_worker(emulator) as worker,
        ):
            job_id = await client.run(webhook=f"http://127.0.0.1:{port}/hook")
            await worker.take()
            await worker.done(job_id, output=1)
            await asyncio.wait_for(enough.wait(), 5)
            _, answer = await client.get(f"/status/{job_id}")
    finally:
        await runner.cleanup()
    assert [answer] * calls == bodies


async def test_shutdown_ends_open_polls_at_once() -> None:
    async with aiohttp.ClientSession() as session:
        async with running_emulator(limits=Limits()) as emulator:
            session.headers["Authorization"] = emulator.worker_key
            worker = HandWorker(session, emulator.base)
            polls = [asyncio.create_task(worker.take()), asyncio.create_task(worker.stops())]
            await open_polls(emulator, 2)
        assert [None, None] == await asyncio.wait_for(asyncio.gather(*polls), 5)


async def test_json_bodies_are_what_a_form_typed_post_carries() -> None:
    async with (
        running_emulator() as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        job_id = await client.run()
        await worker.take()
        await worker.done_raw(job_id, json.dumps({"output": "ä=&"}, ensure_ascii=False).encode())
        assert {"output": "ä=&"} == emulator.jobs[job_id].result


async def test_another_endpoint_id_is_404() -> None:
    async with running_emulator(endpoint_id="mine") as emulator, aiohttp.ClientSession() as session:
        client = Client(session, emulator.url + "/v2/mine")
        assert 200 == (await client.get("/health"))[0]
        async with session.get(f"{emulator.url}/v2/other/health") as response:
            assert 404 == response.status
