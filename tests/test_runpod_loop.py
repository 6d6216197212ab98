"""The job loop in this process, with the real SDK, against a platform over HTTP."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.fake_platform import WORKER_ID, FakePlatform
from tests.loop_worker import ScriptedRunner
from worker.runpod_loop import serve
from worker.runpod_sdk import Sdk, load_sdk
from worker.serving import EXIT_FAILED, Limits
from worker.stream import Merge

Serving = Callable[..., AbstractAsyncContextManager["asyncio.Task[int]"]]


@pytest.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    async with FakePlatform().serving() as platform:
        yield platform


@pytest.fixture
def serving(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """A job loop for the length of a block; its task when that is of interest."""
    load_sdk()
    variables = platform.variables()
    rp_job = importlib.import_module("runpod.serverless.modules.rp_job")
    rp_http = importlib.import_module("runpod.serverless.modules.rp_http")
    take = variables["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", WORKER_ID)
    done = variables["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", WORKER_ID)
    stream = variables["RUNPOD_WEBHOOK_POST_STREAM"].replace("$RUNPOD_POD_ID", WORKER_ID)
    monkeypatch.setattr(rp_job, "JOB_GET_URL", take)
    monkeypatch.setattr(rp_http, "JOB_DONE_URL", done)
    monkeypatch.setattr(rp_http, "JOB_STREAM_URL", stream)
    monkeypatch.setenv("RUNPOD_AI_API_KEY", "KEY")
    monkeypatch.setenv("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true")
    monkeypatch.setenv("RUNPOD_SKIP_GPU_CHECK", "true")
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)

    @asynccontextmanager
    async def run(
        runner: ScriptedRunner | None = None, *, capacity: int = 1, **options: Any
    ) -> AsyncIterator[asyncio.Task[int]]:
        end = asyncio.Event()
        limits = Limits(**{"fatal": 0.0, "last_posts": 0.5, **options.pop("limits", {})})
        worker = serve(
            runner or ScriptedRunner(),
            sdk=Sdk(),
            capacity=capacity,
            grace_period=5.0,
            limits=limits,
            **{"fatal": end, **options},
        )
        task = asyncio.create_task(worker)
        try:
            yield task
        finally:
            end.set()
            options.get("fatal", end).set()
            await asyncio.wait_for(task, 10)

    return run


def job(job_id: str, **script: Any) -> dict[str, Any]:
    return {"id": job_id, "input": script, "webhook": None}


async def test_a_plain_job_is_answered_with_its_output(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", text="hé"))
        assert {"output": {"text": "hé"}} == await platform.result("j1")
        assert {"j1": False} == platform.streamed
        assert {} == platform.chunks


async def test_requests_look_like_the_sdks(platform: FakePlatform, serving: Serving) -> None:
    async with serving():
        await platform.submit(job("j1", chunks=1))
        await platform.result("j1")
        seen = [request for _, request in platform.requests]
        take = next(request for request in seen if "/job-take/" in request.path)
        chunk = next(request for request in seen if "/job-stream/" in request.path)
        done = next(request for request in seen if "/job-done/" in request.path)
        assert "/v2/ep/job-take/w1?gpu=X&job_in_progress=0" == take.path_qs
        assert "/v2/ep/job-stream/w1/j1?gpu=X&isStream=false" == chunk.path_qs
        assert "/v2/ep/job-done/w1/j1?gpu=X&isStream=true" == done.path_qs
        for request in (take, chunk, done):
            assert "KEY" == request.headers["Authorization"]
            assert request.headers["User-Agent"].startswith("RunPod-Python-SDK/1.12")
        for request in (chunk, done):
            assert "j1" == request.headers["X-Request-ID"]
            assert "application/x-www-form-urlencoded" == request.headers["Content-Type"]
            assert "utf-8" == request.headers["charset"]


async def test_as_many_jobs_are_asked_for_as_places_are_free(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving(capacity=3):
        await platform.submit(job("j1", seconds=30))
        await platform.until(lambda: platform.count("job-take") == 2)
        takes = [request.path_qs for _, request in platform.requests if "take" in request.path]
        assert [
            "/v2/ep/job-take-batch/w1?gpu=X&batch_size=3&job_in_progress=0",
            "/v2/ep/job-take-batch/w1?gpu=X&batch_size=2&job_in_progress=1",
        ] == takes


async def test_nothing_is_asked_for_while_all_places_are_taken(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", seconds=0.4), job("j2"))
        await platform.result("j2")
        times = [at for at, request in platform.requests if "take" in request.path]
        assert times[1] - times[0] > 0.35


async def test_jobs_follow_each_other_without_a_pause(
    platform: FakePlatform, serving: Serving
) -> None:
    """The SDK's own loop takes a second for each."""
    async with serving():
        await platform.submit(*(job(f"j{number}") for number in range(40)))
        started = time.monotonic()
        await platform.until(lambda: len(platform.results) == 40)
        assert time.monotonic() - started < 5


async def test_a_backlog_keeps_all_places_busy(platform: FakePlatform, serving: Serving) -> None:
    async with serving(capacity=8):
        started = time.monotonic()
        await platform.submit(*(job(f"j{number}", seconds=0.1) for number in range(80)))
        await platform.until(lambda: len(platform.results) == 80)
        assert time.monotonic() - started < 5


async def test_chunks_come_in_order_before_the_result(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", chunks=50, gap=0.002))
        await platform.result("j1")
        assert "".join(f"w{number} " for number in range(50)) == "".join(platform.chunks["j1"])
        assert {"j1": True} == platform.streamed


async def test_the_first_chunk_does_not_wait_for_the_second(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", chunks=2, gap=30))
        await platform.until(lambda: "j1" in platform.chunks)
        assert ["w0 "] == platform.chunks["j1"]


async def test_a_failed_chunk_is_posted_again(platform: FakePlatform, serving: Serving) -> None:
    platform.chunk_posts.extend(["drop", 503])
    async with serving():
        await platform.submit(job("j1", chunks=3, gap=0.01))
        await platform.result("j1")
        assert "w0 w1 w2 " == "".join(platform.chunks["j1"])


async def test_a_refused_stream_is_given_up_and_the_job_goes_on(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.chunk_posts.extend([400] * 3)
    async with serving():
        await platform.submit(job("j1", chunks=3, gap=0.5))
        assert {"output": {"chunks": 3, "gap": 0.5}} == await platform.result("j1")
        assert {"j1": True} == platform.streamed
        assert {} == platform.chunks


async def test_a_fault_in_merging_does_not_end_the_job(
    platform: FakePlatform, serving: Serving
) -> None:
    class Unmergeable(ScriptedRunner):
        def merger(self) -> Merge:
            return lambda events: ["".join(events) + 1]  # type: ignore[operator]  # the fault

    async with serving(Unmergeable()):
        await platform.submit(job("j1", chunks=1))
        assert {"output": {"chunks": 1}} == await platform.result("j1")


async def test_a_result_is_posted_until_it_is_taken(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.extend(["drop", 503, 429])
    async with serving():
        await platform.submit(job("j1"))
        assert {"output": {}} == await platform.result("j1")


async def test_a_post_of_a_result_that_is_never_answered_is_made_again(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.extend(["silence", "silence"])
    async with serving(limits={"post": 0.2}):
        await platform.submit(job("j1"))
        assert {"output": {}} == await platform.result("j1")


async def test_a_stream_that_is_never_answered_does_not_hold_back_the_result(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.chunk_posts.extend(["silence"] * 10)
    async with serving(limits={"chunk": 0.2}):
        await platform.submit(job("j1", chunks=1))
        assert {"output": {"chunks": 1}} == await platform.result("j1")


async def test_the_place_is_free_while_a_result_is_not_taken(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.append(503)
    async with serving():
        await platform.submit(job("j1"), job("j2"))
        await platform.until(lambda: len(platform.results) == 2)
        assert ["j2", "j1"] == list(platform.results)


async def test_a_result_is_not_lost_to_a_platform_that_refuses_for_a_while(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.extend([401, 400, 403, 500, 400])
    async with serving():
        await platform.submit(job("j1", text="x"))
        assert {"output": {"text": "x"}} == await platform.result("j1", timeout=20)


async def test_a_result_that_is_refused_for_good_is_told_as_a_failure(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.extend([400] * 3)
    async with serving(limits={"refused": 0.0}):
        await platform.submit(job("j1"))
        result = await platform.result("j1", timeout=20)
        assert "the platform refused the result (HTTP 400)" == result["error"]


@pytest.mark.parametrize("status", [404, 410])
async def test_the_result_of_a_job_that_is_gone_is_dropped_and_the_worker_goes_on(
    platform: FakePlatform, serving: Serving, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    platform.posts.extend([status] * 3)
    async with serving():
        await platform.submit(job("j1"))
        await platform.until(lambda: platform.count("job-done") == 3)
        await platform.submit(job("j2"))
        await platform.result("j2")
        assert ["j2"] == list(platform.results)
    assert f"the result of job j1 is lost: HTTP {status}" in caplog.messages


async def test_a_result_that_is_too_large_for_the_platform_is_told_at_once(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.extend([413] * 3)
    async with serving():
        await platform.submit(job("j1"))
        result = await platform.result("j1", timeout=20)
        assert "the platform refused the result (HTTP 413)" == result["error"]


async def test_a_result_is_given_up_at_its_deadline(
    platform: FakePlatform, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    platform.posts.extend([503] * 100)
    async with serving(limits={"result": 0.0}):
        await platform.submit(job("j1"), job("j2"))
        await platform.until(lambda: platform.count("job-done") == 2)
    assert "the result of job j1 is lost: HTTP 503" in caplog.messages


async def test_no_job_is_taken_while_too_much_is_undelivered(
    platform: FakePlatform, serving: Serving
) -> None:
    platform.posts.append(503)
    async with serving(limits={"undelivered_bytes": 10}):
        await platform.submit(job("j1"), job("j2"))
        await platform.until(lambda: len(platform.results) == 2)
        assert ["j1", "j2"] == list(platform.results)


async def test_a_large_result_arrives(platform: FakePlatform, serving: Serving) -> None:
    async with serving():
        await platform.submit(job("j1", text="x" * 3_000_000))
        assert 3_000_000 == len((await platform.result("j1"))["output"]["text"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stopped_job_is_cancelled_at_once_and_not_answered(
    platform: FakePlatform, serving: Serving, capsys: pytest.CaptureFixture[str], stream: bool
) -> None:
    script = {"chunks": 1, "seconds": 30} if stream else {"seconds": 30}
    async with serving(capacity=2):
        await platform.submit(job("j1", **script), job("j2"))
        await platform.result("j2")
        await platform.stop("j1")
        await platform.submit(job("j3", seconds=0.01))
        await platform.result("j3")
    assert "cancelled j1\n" == capsys.readouterr().out
    assert {"j2", "j3"} == set(platform.results)


async def test_a_job_is_stopped_while_its_chunk_is_being_posted(
    platform: FakePlatform, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.chunk_posts.extend([503] * 100)
    async with serving():
        await platform.submit(job("j1", chunks=1, seconds=30))
        await platform.until(lambda: platform.count("job-stream") == 1)
        await platform.stop("j1")
        await platform.submit(job("j2"))
        await platform.result("j2", timeout=2)
    assert "cancelled j1\n" == capsys.readouterr().out
    assert 1 == platform.count("job-stream")


async def test_a_stop_for_an_unknown_job_changes_nothing(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", seconds=0.2))
        await platform.stop("j9")
        await platform.until(lambda: platform.count("job-stop") == 2)
        assert {"output": {"seconds": 0.2}} == await platform.result("j1")


async def test_a_job_that_is_sent_again_while_it_runs_runs_once(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving(capacity=4):
        await platform.submit(job("j1", seconds=0.2), job("j1", again=True))
        assert {"output": {"seconds": 0.2}} == await platform.result("j1")


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="no json"),
        web.Response(body=b"{", content_type="application/json"),
        web.json_response(None),
        web.json_response([]),
        web.json_response({"input": {}}),
        web.json_response({"id": "j9"}),
        web.json_response([None, 7, "x", [], {}, {"id": 5}, {"id": ""}, {"id": "a\nb"}]),
        web.Response(status=400),
        web.Response(status=500),
        web.Response(status=302),
    ],
    ids=lambda answer: f"{answer.status} {(answer.text or '')[:12]}",
)
async def test_the_worker_goes_on_after_an_answer_that_holds_no_job(
    platform: FakePlatform, serving: Serving, answer: web.Response
) -> None:
    platform.takes.append(answer)
    await platform.submit(job("j1"))
    async with serving(capacity=2):
        assert {"output": {}} == await platform.result("j1")


@pytest.mark.parametrize(
    "bad", [{"id": "j1"}, {"id": "j1", "input": None}, {"id": "j1", "input": "x", "id2": 1}]
)
async def test_a_job_with_bad_input_is_answered(
    platform: FakePlatform, serving: Serving, bad: dict[str, Any]
) -> None:
    async with serving(capacity=2):
        await platform.submit(bad)
        assert "the job's input must be an object" == (await platform.result("j1"))["error"]


async def test_a_fault_of_the_runner_fails_its_job_only(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving():
        await platform.submit(job("j1", crash=True), job("j2"))
        assert (
            "the worker failed on this job; its log names j1"
            == ((await platform.result("j1"))["error"])
        )
        await platform.result("j2")


@pytest.mark.parametrize("status", [204, 400])
async def test_empty_answers_that_come_at_once_are_not_asked_for_in_a_hot_loop(
    platform: FakePlatform, serving: Serving, status: int
) -> None:
    platform.takes.extend(web.Response(status=status) for _ in range(200))
    async with serving():
        await asyncio.sleep(0.5)  # time itself is what is measured
        assert 3 <= platform.count("job-take") <= 15


async def test_polls_back_off_while_the_platform_fails_and_say_so_once(
    platform: FakePlatform, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    platform.takes.extend(web.Response(status=500) for _ in range(4))
    async with serving():
        started = time.monotonic()
        await platform.submit(job("j1"))
        await platform.result("j1")
        assert time.monotonic() - started > 0.7
    logged = Counter(message for message in caplog.messages if message.startswith("job-take"))
    assert {"job-take fails: HTTP 500; trying on": 1, "job-take works again": 1} == logged


async def test_too_many_requests_pause_the_polls(platform: FakePlatform, serving: Serving) -> None:
    platform.takes.extend([web.Response(status=429), web.Response(status=429)])
    async with serving():
        await asyncio.sleep(1)  # time itself is what is measured
        assert 1 == platform.count("job-take")


async def test_a_poll_that_the_platform_forgets_is_ended(
    platform: FakePlatform, serving: Serving
) -> None:
    async with serving(limits={"poll": 0.1}):
        await platform.until(lambda: platform.count("job-take") == 3)


async def test_no_job_is_taken_while_the_gate_is_closed(
    platform: FakePlatform, serving: Serving
) -> None:
    gate = asyncio.Event()
    async with serving(gate=gate):
        await platform.until(lambda: platform.count("job-stop") == 1)
        assert 0 == platform.count("job-take")
        gate.set()
        await platform.until(lambda: platform.count("job-take") == 1)


async def test_a_dead_engine_ends_the_worker_with_an_error_after_failing_its_jobs(
    platform: FakePlatform, serving: Serving
) -> None:
    fatal = asyncio.Event()
    async with serving(fatal=fatal, capacity=2) as worker:
        await platform.submit(job("j1", seconds=30))
        await platform.until(lambda: platform.count("job-take") == 2)
        fatal.set()
        assert EXIT_FAILED == await asyncio.wait_for(worker, 5)
    expected = "the worker was stopped before the job was done; send it again"
    assert {"error": expected, "output": {"status": 503}} == platform.results["j1"]


async def test_results_are_json_as_they_came(platform: FakePlatform, serving: Serving) -> None:
    text = json.loads('"\\u0000 \\u2028 \\ud83d\\ude00"')
    async with serving():
        await platform.submit(job("j1", text=text))
        assert {"output": {"text": text}} == await platform.result("j1")
