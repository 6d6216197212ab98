"""What RunPod itself refuses, and what it does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.faults import Faults
from gateway.runpod_api import Busy, RunpodApi, Unreachable
from tests.emulator.helpers import client_session
from tests.gateway.helpers import KEY, TEXT, answer, running
from tests.ports import free_port
from worker.errors import EngineBroken

GENERATE = "/api/v1/generate"


async def test_a_right_key_is_sent() -> None:
    async with running(answer, api_key=KEY) as setup:
        assert 200 == (await setup.post(GENERATE, {}))[0]


async def test_a_wrong_key_is_a_401_with_one_sentence() -> None:
    async with running(answer, api_key="right") as setup:
        url = setup.emulator.base
        async with running(answer, url=url) as other:
            expected = "RunPod refuses the key; set RUNPOD_API_KEY to one of yours"
            assert (401, {"error": {"message": expected}}) == await other.post(GENERATE, {})


async def test_the_key_is_neither_logged_nor_echoed(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(errors={"run": [400, 500, 429]})
    async with running(answer, api_key=KEY, faults=faults) as setup:
        with caplog.at_level("DEBUG"):
            answers = [await setup.post(GENERATE, {}) for _ in range(4)]
    assert [400, 502, 503, 200] == [status for status, _ in answers]
    assert KEY not in caplog.text + repr(answers)


async def test_an_unknown_endpoint_is_a_404() -> None:
    async with running(answer) as setup:
        url = setup.emulator.url + "/v2/other"
        async with running(url=url) as other:
            status, body = await other.post(GENERATE, {})
            assert (404, "RunPod knows no such endpoint; check its id") == (
                status,
                body["error"]["message"],
            )


async def test_too_many_requests_is_a_503_that_says_when_to_come_back() -> None:
    async with running(answer, faults=Faults(errors={"run": [429]})) as setup:
        url = setup.gateway.url + GENERATE
        async with setup.session.post(url, json={}) as response:
            assert (503, "5") == (response.status, response.headers["Retry-After"])
            assert "no more requests" in (await response.json())["error"]["message"]


async def test_a_submission_that_failed_is_not_repeated() -> None:
    async with running(answer, faults=Faults(errors={"run": [500]})) as setup:
        assert 502 == (await setup.post(GENERATE, {}))[0]
        assert [] == setup.jobs


@pytest.mark.parametrize("status", [429, 500])
async def test_a_poll_that_failed_is_repeated(status: int) -> None:
    async with running(answer, faults=Faults(errors={"status": [status]})) as setup:
        assert (200, {"results": [{"text": TEXT}]}) == await setup.post(GENERATE, {})


async def test_a_poll_is_repeated_while_patience_lasts() -> None:
    faults = Faults(errors={"status": [429] * 9})
    async with running(faults=faults) as setup:
        api = RunpodApi(setup.emulator.base, None, patience=0.3)
        with pytest.raises(Busy):
            await api.status("any")
        await api.close()


async def test_a_stream_that_broke_is_not_asked_for_again() -> None:
    faults = Faults(errors={"stream": [500]})
    async with running(faults=faults) as setup:
        api = RunpodApi(setup.emulator.base, None)
        with pytest.raises(EngineBroken):
            await api.stream("any")
        await api.close()


async def test_nothing_there_is_a_503_that_says_where() -> None:
    port = free_port()
    async with running(url=f"http://127.0.0.1:{port}/v2/local") as setup:
        status, body = await setup.post(GENERATE, {})
        assert 503 == status
        assert f"nothing answers at 127.0.0.1:{port}" in body["error"]["message"]


async def test_what_is_not_sent_may_be_repeated() -> None:
    api = RunpodApi(f"http://127.0.0.1:{free_port()}/v2/local", None, patience=0.0)
    with pytest.raises(Unreachable):
        await api.stream("any")
    await api.close()


async def test_a_job_that_is_gone_is_a_502() -> None:
    async def forget(worker: Any, job: dict[str, Any]) -> None:
        async with client_session(setup.emulator) as client:
            await client.get(f"/status/{job['id']}?ttl=50")

    async with running(forget) as setup:
        status, body = await setup.post(GENERATE, {})
        assert 502 == status
        assert "does not know this job" in body["error"]["message"]
