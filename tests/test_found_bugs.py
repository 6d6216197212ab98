"""What was found by breaking the worker, each as its smallest case."""

import asyncio
import json
import logging
from typing import Any, cast

import aiohttp
import pytest

from chaos.dialect import event
from tests.fake_engine import Call, Script, fake_engine
from tests.fuzz import make_runner
from worker.assemble import assembler_for
from worker.client import EngineClient
from worker.delivery import Delivery
from worker.engines.engine import Engine
from worker.errors import EngineBroken
from worker.events import Event
from worker.job import Request
from worker.output import completed
from worker.progress import Progress
from worker.runner import Runner
from worker.serving import Limits
from worker.slots import Slots
from worker.stream import Discard, Sink
from worker.supervisor import Supervisor
from worker.watched import Watched

SECRET = "hf_CanaryCanaryCanary1234"


def job_for(route: str, **payload: Any) -> dict[str, Any]:
    payload = {"prompt": "Hello", "max_new_tokens": 5, **payload}
    return {"id": "j1", "input": {"api": {"method": "POST", "endpoint": route}, "payload": payload}}


async def run(script: Script, job: dict[str, Any], sink: Sink | None = None) -> dict[str, Any]:
    """The body of a job's outcome on an engine with this script."""
    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        try:
            runner = make_runner(client, Slots(1), job_timeout=20)
            outcome = await runner.run(job, sink or Discard())
        finally:
            await client.close()
    body: dict[str, Any] = json.loads(outcome.body)
    return body


def streams(*events: str) -> Script:
    async def script(call: Call) -> None:
        await call.begin_stream()
        await call.raw("".join(events).encode())

    return script


def answers(body: Any, status: int = 200) -> Script:
    async def script(call: Call) -> None:
        await call.answer(body, status=status)

    return script


@pytest.mark.parametrize(
    ("route", "sent"),
    [
        ("/v1/completions", {"choices": [None]}),
        ("/v1/completions", {"choices": 7}),
        ("/v1/completions", {"choices": [{"index": [], "text": "x"}]}),
        ("/v1/completions", {"choices": [{"text": 7}]}),
        ("/v1/chat/completions", {"choices": [{"delta": "x"}]}),
        ("/v1/chat/completions", {"choices": [{"delta": {"tool_calls": [{"index": -9}]}}]}),
        ("/v1/responses", {"type": "response.completed", "response": "x"}),
        ("/v1/messages", {"type": "content_block_start"}),
        ("/v1/messages", {"type": "message_start", "message": 7}),
    ],
)
def test_an_event_of_another_shape_is_a_broken_answer(route: str, sent: Any) -> None:
    assembler = assembler_for(route, hide_usage=True)
    assert assembler is not None

    with pytest.raises(EngineBroken):
        assembler.add(Event("", json.dumps(sent)))


def test_the_number_of_a_tool_call_is_bounded() -> None:
    """A single event with 10**9 there took all memory there was."""
    assembler = assembler_for("/v1/chat/completions", hide_usage=True)
    assert assembler is not None
    sent = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 200_000}]}}]}

    with pytest.raises(EngineBroken):
        assembler.add(Event("", json.dumps(sent)))


async def test_an_error_with_status_200_is_not_completed() -> None:
    body = await run(answers({"error": {"message": "out of memory"}}), job_for("/v1/embeddings"))

    assert "the engine refused the request: out of memory" == body.get("error")


async def test_a_validation_error_of_another_shape_is_no_fault_of_the_worker() -> None:
    body = await run(answers({"detail": [{"loc": 7, "msg": "x"}]}, 422), job_for("/v1/embeddings"))

    assert 422 == body["output"]["status"]


async def test_a_usage_of_another_shape_is_no_fault_of_the_worker() -> None:
    choice = {"index": 0, "text": "x", "finish_reason": "stop"}
    script = streams(event({"choices": [choice], "usage": [1]}), event("[DONE]"))
    body = await run(script, job_for("/v1/completions"))

    assert "worker failed" not in body.get("error", "")


async def test_a_text_that_is_a_number_is_a_broken_answer() -> None:
    body = await run(streams(event({"content": 7, "stop": True})), job_for("/generate"))

    assert 502 == body["output"].get("status")


async def test_an_endless_number_of_tokens_does_not_end_the_job() -> None:
    sent = event({"content": "x", "stop": True, "tokens_predicted": 10**400})
    body = await run(streams(event({"content": "y"}), sent), job_for("/generate"))

    assert {"output": {"results": [{"text": "yx"}]}} == body


async def test_an_endless_execution_timeout_is_the_workers_own() -> None:
    job = {**job_for("/stop-stream"), "policy": {"executionTimeout": 10**400}}

    assert {"output": {"results": "success"}} == await run(answers({}), job)


async def test_a_stream_without_end_is_refused_by_its_size() -> None:
    async def script(call: Call) -> None:
        await call.begin_stream()
        part = event({"content": "", "padding": "x" * 1_000_000}).encode()
        for _ in range(500):
            await call.raw(part)

    body = await run(script, job_for("/generate"))

    assert 413 == body["output"]["status"]


async def test_what_the_caller_sent_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "worker"):
        await run(answers({}), job_for("/generate", prompt=["my secret prompt"]))

    assert "my secret prompt" not in caplog.text


async def test_the_detail_of_an_engines_error_holds_no_key_and_no_path() -> None:
    message = f"no such file: /root/models/private/model.gguf, token {SECRET}"
    body = await run(answers({"error": {"message": message}}, 500), job_for("/v1/embeddings"))

    assert (False, False) == (SECRET in json.dumps(body), "/root/models" in json.dumps(body))


async def test_an_engine_that_hangs_is_seen_though_a_job_runs() -> None:
    """The job waited for its own time-out, and with ever new jobs nobody ever looked."""

    class Hangs:
        model_name = "m"
        probe_path = "/health"
        work_path = None
        aborted = asyncio.Event()

        def processor_seconds(self) -> float:
            return 0.0

        def abort(self) -> None:
            loop.call_soon_threadsafe(self.aborted.set)

        async def wait_ready(self, session: Any) -> dict[str, float]:
            return {}

        async def wait_died(self) -> str:
            await asyncio.Event().wait()
            return ""

    async def silence(call: Call) -> None:
        await call.gone()

    loop = asyncio.get_running_loop()
    engine, slots = Hangs(), Slots(1)
    async with fake_engine(silence) as fake, slots.generation():
        client = EngineClient(fake.port)
        supervisor = Supervisor(
            cast("Engine", engine), client, slots, restarts=0, probe_seconds=0.01
        )
        watching = asyncio.create_task(supervisor.run())
        try:
            await asyncio.wait_for(engine.aborted.wait(), 3)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await client.close()


class Recorder:
    """Keeps the events and the sizes that they are said to have."""

    def __init__(self) -> None:
        self.put_events: list[tuple[Any, int]] = []

    async def put(self, event: Any, size: int) -> None:
        self.put_events.append((event, size))


async def test_a_history_counts_as_much_as_it_holds() -> None:
    """20,000 pairs in a job of 200 kB, and a slow platform, took 3 MB for each token."""
    pairs = [["a", "b"]] * 2_000
    history = {"internal": pairs, "visible": pairs}
    recorder = Recorder()

    async def script(call: Call) -> None:
        if call.path == "/tokenize":
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
            await call.raw(head + b'{"tokens": [1]}')
            return
        await streams(event({"content": "x"}), event({"content": "y", "stop": True}))(call)

    await run(script, job_for("/chat", user_input="x", history=history, stream=True), recorder)

    frame, size = recorder.put_events[0]
    assert len(json.dumps(frame)) // 2 <= size


async def test_a_result_that_the_platform_refuses_is_failed_with_the_reason() -> None:
    """A client waited for it until the platform's own time-out."""
    posted: list[Any] = []

    async def script(call: Call) -> None:
        posted.append(call.body)
        await call.answer({}, status=200 if "error" in call.body else 413)

    class Urls:
        def result_url(self, job_id: str, *, stream: bool) -> str:
            return f"http://127.0.0.1:{engine.port}/{job_id}"

        def chunk_url(self, job_id: str) -> str:
            return self.result_url(job_id, stream=True)

    async with fake_engine(script) as engine, aiohttp.ClientSession() as session:
        delivery = Delivery(session, Urls(), Limits())
        delivered = await delivery.result("j1", completed("x").body, stream=False)

    assert delivered
    assert "413" in posted[-1]["error"]


async def test_a_deep_job_is_refused_after_a_death_too() -> None:
    class Dies:
        async def wait_died(self) -> str:
            return "the engine ended"

        def tail(self) -> list[str]:
            return []

    class Recovery:
        ready, lost = asyncio.Event(), asyncio.Event()
        cause: str | None = None

    class Breaks:
        async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
            progress.slot()
            raise EngineBroken("the engine broke off its answer; try again")

    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    runner = Runner(Watched(Breaks(), Dies(), Recovery()), job_timeout=5)
    await runner.run(job_for("/generate"), Discard())
    outcome = await runner.run(job_for("/generate", seed=deep), Discard())

    assert "worker failed" not in (outcome.error or "")
