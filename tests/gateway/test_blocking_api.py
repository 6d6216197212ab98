"""The blocking API's port, with the unmodified `requests` package."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import requests

from emulator.faults import Faults
from emulator.server import running_emulator
from gateway.server import running_gateway
from gateway.settings import GatewaySettings
from tests.emulator.helpers import FAST, HandWorker, eventually
from tests.gateway.helpers import BRISK, MODEL, TEXT, Setup, answer, fail, running

GENERATE = "/api/v1/generate"


async def send(setup: Setup, path: str, body: Any) -> requests.Response:
    """POST as the scripts in text-generation-webui's api-examples do."""
    url = setup.gateway.url + path
    return await asyncio.to_thread(requests.post, url, json=body, timeout=20)


async def test_api_example_generates() -> None:
    async with running(answer) as setup:
        response = await send(setup, GENERATE, {"prompt": "1)", "max_new_tokens": 250})
        assert 200 == response.status_code
        assert TEXT == response.json()["results"][0]["text"]


async def test_api_example_chat_gives_the_history() -> None:
    empty: dict[str, list[Any]] = {"internal": [], "visible": []}
    async with running(answer) as setup:
        body = {"user_input": "Hi", "history": empty, "mode": "instruct"}
        response = await send(setup, "/api/v1/chat", body)
        assert [["Hi", TEXT]] == response.json()["results"][0]["history"]["visible"]


async def test_api_example_model_lists_loads_and_asks() -> None:
    async with running(answer) as setup:
        listed = (await send(setup, "/api/v1/model", {"action": "list"})).json()["result"]
        assert ["None", MODEL] == listed
        body = {"action": "load", "model_name": MODEL, "args": {"loader": "llama.cpp"}}
        loaded = (await send(setup, "/api/v1/model", body)).json()["result"]
        assert (MODEL, 2048) == (
            loaded["model_name"],
            loaded["shared.settings"]["truncation_length"],
        )


async def test_api_example_model_finds_an_error_in_the_answer() -> None:
    async with running(fail) as setup:
        response = await send(setup, "/api/v1/model", {"action": "load", "model_name": "none"})
        assert "the prompt is missing; send one" == response.json()["error"]["message"]


async def test_a_get_of_the_model_gives_its_name() -> None:
    async with running(answer) as setup:
        assert (200, {"result": MODEL}) == await setup.get("/api/v1/model")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("token-count", {"results": [{"tokens": 5}]}),
        ("stop-stream", {"results": "success"}),
    ],
)
async def test_the_small_endpoints_answer(endpoint: str, expected: Any) -> None:
    async with running(answer) as setup:
        response = await send(setup, f"/api/v1/{endpoint}", {"prompt": "x"})
        assert expected == response.json()


async def test_a_failed_job_has_its_status_and_sentence() -> None:
    async with running(fail) as setup:
        expected = {"error": {"message": "the prompt is missing; send one"}}
        assert (400, expected) == await setup.post(GENERATE, {})


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b'{"prompt": ', 400, "not valid JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b'{"top_p": NaN}', 400, "not valid JSON"),
        (b'{"prompt": "' + b"x" * 10_000_000 + b'"}', 413, "10000000"),
        (b'{"prompt": "' + b"x" * 9_999_970 + b'"}', 413, "10000000"),
    ],
    ids=["cut", "list", "nan", "too large", "too large with its envelope"],
)
async def test_a_bad_body_is_refused_without_a_job(body: bytes, status: int, part: str) -> None:
    async with running() as setup:
        answered, error = await setup.post(GENERATE, body)
        assert (status, []) == (answered, setup.jobs)
        assert part in error["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/api/v1/x", 404), ("GET", GENERATE, 405), ("PUT", GENERATE, 405)],
)
async def test_what_is_not_there_is_an_error_in_json(method: str, path: str, status: int) -> None:
    async with (
        running() as setup,
        setup.session.request(method, setup.gateway.url + path) as response,
    ):
        assert status == response.status
        assert ["message"] == list((await response.json())["error"])


async def test_any_page_may_call_as_ever() -> None:
    async with running(answer) as setup:
        url = setup.gateway.url + "/api/v1/model"
        headers = {"Origin": "http://page.example"}
        async with setup.session.options(url, headers=headers) as response:
            assert (200, "*") == (response.status, response.headers["Access-Control-Allow-Origin"])
        async with setup.session.get(url, headers=headers) as response:
            assert (200, "*") == (response.status, response.headers["Access-Control-Allow-Origin"])


async def test_only_the_page_that_is_named_may_call() -> None:
    async with running(answer, origin="http://localhost:8000") as setup:
        for origin, status in [("http://localhost:8000", 200), ("http://page.example", 403)]:
            headers = {"Origin": origin}
            assert status == (await setup.get("/api/v1/model", headers=headers))[0]


async def test_a_client_that_hangs_up_cancels_its_job() -> None:
    async with running() as setup:
        asking = asyncio.create_task(setup.post(GENERATE, {"prompt": "x"}))
        job = await setup.worker.take()
        asking.cancel()
        assert [job["id"]] == await setup.worker.stops()
        assert "CANCELLED" == setup.jobs[0].status


async def test_a_client_that_hangs_up_while_its_job_is_queued_cancels_it() -> None:
    async with running() as setup:
        asking = asyncio.create_task(setup.post(GENERATE, {"prompt": "x"}))
        await eventually(lambda: bool(setup.jobs))
        asking.cancel()
        await eventually(lambda: "CANCELLED" == setup.jobs[0].status)


async def test_a_client_that_hangs_up_before_its_jobs_id_is_known_cancels_it() -> None:
    async with running(faults=Faults(delays={"run": 0.3})) as setup:
        asking = asyncio.create_task(setup.post(GENERATE, {"prompt": "x"}))
        await eventually(lambda: bool(setup.jobs))
        asking.cancel()
        await eventually(lambda: "CANCELLED" == setup.jobs[0].status)


async def test_a_gateway_that_stops_cancels_what_runs() -> None:
    async with running_emulator(limits=FAST) as emulator, aiohttp.ClientSession() as session:
        settings = GatewaySettings(url=emulator.base, port=0, stream_port=0)
        async with running_gateway(settings) as gateway:
            asking = asyncio.create_task(session.post(gateway.url + GENERATE, json={}).__aenter__())
            await eventually(lambda: bool(emulator.jobs))
        assert ["CANCELLED"] == [job.status for job in emulator.jobs.values()]
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_cold_start_is_waited_for() -> None:
    async with running() as setup:
        asking = asyncio.create_task(setup.post(GENERATE, {"prompt": "x"}))
        done, _ = await asyncio.wait({asking}, timeout=0.5)
        assert not done
        await answer(setup.worker, await setup.worker.take())
        assert 200 == (await asking)[0]


async def test_no_worker_within_the_wait_is_a_504_and_cancels_the_job() -> None:
    async with running(wait=0.2) as setup:
        status, body = await setup.post(GENERATE, {"prompt": "x"})
        assert 504 == status
        assert "no worker took the job within 0.2 s" in body["error"]["message"]
        await eventually(lambda: "CANCELLED" == setup.jobs[0].status)


async def test_a_long_wait_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(wait=1.3, limits=BRISK) as setup:
        with caplog.at_level("INFO", "worker"):
            await setup.post(GENERATE, {"prompt": "x"})
    assert 1 == sum("is IN_QUEUE" in record.getMessage() for record in caplog.records)
    assert 1 == sum("queued=1." in record.getMessage() for record in caplog.records)


async def test_many_clients_are_answered_at_once() -> None:
    async def slow(worker: HandWorker, job: dict[str, Any]) -> None:
        waiting.append(job)
        if len(waiting) == 20:
            for each in waiting:
                await answer(worker, each)

    waiting: list[dict[str, Any]] = []
    async with running(slow) as setup:
        answers = await asyncio.gather(*[setup.post(GENERATE, {}) for _ in range(20)])
        assert [200] * 20 == [status for status, _ in answers]
