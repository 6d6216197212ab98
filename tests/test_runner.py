"""One job from input to outcome: a failure is FAILED with a sentence, a cancelled one is gone."""

import asyncio
import json
import logging
from typing import Any

import pytest

from worker.deadline import deadline
from worker.errors import EngineBroken
from worker.job import Request
from worker.progress import Progress
from worker.runner import Runner
from worker.stream import Discard, Sink

JOB = {"id": "j1", "input": {"api": {"method": "GET", "endpoint": "/model"}}}


class Engine:
    """Answers with a value, raises an error, or never ends."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.asked: list[Request] = []

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        self.asked.append(request)
        if isinstance(self.result, BaseException):
            raise self.result
        if self.result is None:
            await asyncio.Event().wait()
        return self.result


async def run(result: Any, job: Any = None, job_timeout: float = 5) -> dict[str, Any]:
    runner = Runner(Engine(result), job_timeout=job_timeout, platform_first=0)
    outcome = await runner.run(JOB if job is None else job, Discard())
    body: dict[str, Any] = json.loads(outcome.body)
    return body


async def test_the_engines_object_is_the_output() -> None:
    assert {"output": {"result": "m"}} == await run({"result": "m"})


async def test_a_bad_input_is_failed() -> None:
    body = await run({}, {"id": "j", "input": 7})

    assert ("input must be an object" in body["error"], 400) == (True, body["output"]["status"])


@pytest.mark.parametrize("job", [{}, {"id": None}, {"id": 7, "input": None}])
async def test_a_job_without_anything_is_failed(job: Any) -> None:
    assert "must be an object" in (await run({}, job))["error"]


async def test_an_engine_error_is_failed_with_its_detail() -> None:
    body = await run(EngineBroken("the engine broke off", detail={"partial": "x"}))

    expected = {"status": 502, "detail": {"partial": "x"}}
    assert {"error": "the engine broke off", "output": expected} == body


async def test_a_result_that_is_not_json_is_failed() -> None:
    assert "can't be sent as JSON" in (await run({"x": float("nan")}))["error"]


async def test_a_fault_of_the_worker_is_failed_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = await run(KeyError("/root/secret/path"))

    error = "the worker failed on this job; its log names j1"
    assert {"error": error, "output": {"status": 500}} == body


async def test_a_job_over_its_time_says_timed_out() -> None:
    body = await run(None, job_timeout=0.01)

    assert ("TIMED_OUT: the job was not done within 0.01 s", 504) == (
        body["error"].split(";")[0],
        body["output"]["status"],
    )


async def test_the_jobs_own_time_limit_holds_where_it_is_shorter() -> None:
    body = await run(None, {**JOB, "policy": {"executionTimeout": 10}}, job_timeout=5)

    assert "within 0.01 s" in body["error"]


async def test_a_cancelled_job_is_cancelled_not_failed() -> None:
    task = asyncio.create_task(run(None))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_lets_a_cancellation_through() -> None:
    async def wait() -> None:
        with deadline(5, RuntimeError("late")):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_does_nothing_after_its_block() -> None:
    with deadline(0.001, RuntimeError("late")):
        pass
    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("job_input", "streams"),
    [
        ({"openai_route": "/v1/completions", "openai_input": {"stream": True}}, True),
        ({"openai_route": "/v1/completions", "openai_input": {"prompt": "x"}}, False),
        ("rubbish", False),
    ],
)
def test_only_a_job_that_asks_for_it_is_streamed(job_input: Any, streams: bool) -> None:
    runner = Runner(Engine(), job_timeout=5)

    assert streams == runner.wants_stream({"id": "j", "input": job_input})


async def test_a_job_is_one_log_line_without_its_texts(caplog: pytest.LogCaptureFixture) -> None:
    job = {"id": "j1", "input": {"openai_route": "/v1/x", "openai_input": {"prompt": "SECRET"}}}
    with caplog.at_level(logging.INFO, "worker"):
        await run({"text": "SECRET"}, job)

    (record,) = [record for record in caplog.records if record.name == "worker"]
    message = record.getMessage()
    assert (True, False) == (message.startswith("job j1 /v1/x COMPLETED"), "SECRET" in message)
