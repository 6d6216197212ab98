"""What was recorded of engines under load, of disconnects and of stops: the worker's outcome.

The fake engines behave as it was recorded (they queue, go on for a caller who is gone, stop when
told); each test names its recording.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web

from tests.engines.fake_classic import DONE, END, Collected, FakeClassic, Running, fake_classic
from tests.engines.fake_classic import make_checkout as classic_files
from tests.engines.fake_webui import make_checkout
from tests.engines.test_current import make, started
from tests.engines.test_current_recordings import CONTRACT, LOADED, Host
from tests.fake_engine import Call, fake_engine
from worker.blocking import BlockingApi
from worker.client import EngineClient
from worker.dispatch import Dispatch
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
from worker.job import parse_job
from worker.progress import Progress
from worker.slots import Slots

LIMIT = 20.0
T = TypeVar("T")


def recorded(name: str) -> Any:
    return json.loads((CONTRACT / f"{name}.json").read_text("utf-8"))


async def soon(work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    return await asyncio.wait_for(work, LIMIT)


class SlowClassic(FakeClassic):
    """It generates for one at a time, for a caller who is gone too, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.begun = asyncio.Event(), asyncio.Event()
        self.inside = self.most = 0
        self._lock = asyncio.Lock()
        self.answers["generate"] = self._generate

    def play_until_stopped(self, frames: list[Any]) -> None:
        """Send these frames on a websocket, and its end when told to stop."""

        async def script(socket: web.WebSocketResponse, body: Any) -> None:
            self.stopped.clear()
            for frame in frames:
                await socket.send_json(frame)
            await self.stopped.wait()
            self.print(DONE.format(len(frames)))
            await socket.send_json(END)

        self.frames = script

    async def _generate(self, call: Call) -> Any:
        async with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.begun.set()
            self.stopped.clear()
            waits = [asyncio.ensure_future(event.wait()) for event in (self.go_on, self.stopped)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            self.inside -= 1
            partial = recorded("legacy/behaviour_stop_stream")["generate"]["generation"]["body"]
            return {"results": [{"text": "whole"}]} if self.go_on.is_set() else json.loads(partial)


@asynccontextmanager
async def slow_classic(folder: Path) -> AsyncIterator[tuple[SlowClassic, Running]]:
    fake = SlowClassic()
    async with fake_classic(classic_files(folder), fake) as it:
        yield fake, it


async def test_parallel_jobs_on_the_classic_all_end_one_after_another(tmp_path: Path) -> None:
    """legacy/behaviour_parallel: they are queued; the model's name and token counts are not."""
    requests = recorded("legacy/behaviour_parallel")["parallel4"]["requests"]
    async with slow_classic(tmp_path) as (fake, it):
        body = {"prompt": "x"}
        jobs = [asyncio.create_task(it.job("/generate", body)) for _ in requests]
        await soon(fake.begun.wait())
        assert "result" in await soon(it.job("/model"))
        assert "results" in await soon(it.job("/token-count", {"prompt": "a b"}))
        assert not any(job.done() for job in jobs)
        fake.go_on.set()
        outcomes = await soon(asyncio.gather(*jobs))

    assert [{"results": [{"text": "whole"}]}] * len(requests) == outcomes
    assert 1 == fake.most


async def test_a_job_whose_caller_left_the_classic_does_not_hold_it(tmp_path: Path) -> None:
    """legacy/behaviour_disconnect: it would go on for 20 s; the worker tells it to stop."""
    assert (
        recorded("legacy/behaviour_disconnect")["disconnect"]["next_request_answered_after_s"] > 20
    )
    async with slow_classic(tmp_path) as (fake, it):
        job = asyncio.create_task(it.job("/generate", {"prompt": "x"}))
        await soon(fake.begun.wait())
        job.cancel()
        await asyncio.wait({job})
        fake.go_on.set()
        answer = await soon(it.job("/generate", {"prompt": "y"}))

    assert (True, {"results": [{"text": "whole"}]}) == (job.cancelled(), answer)
    assert "stop-stream" in [key for key, _ in fake.calls]


async def test_a_stop_gives_the_text_that_there_is_and_a_chat_keeps_its_reply(
    tmp_path: Path,
) -> None:
    """legacy/behaviour_stop_stream: the engine would lose the reply of a chat."""
    record = recorded("legacy/behaviour_stop_stream")
    lost = json.loads(record["chat"]["body"])["results"][0]["history"]
    async with slow_classic(tmp_path) as (fake, it):
        job = asyncio.create_task(it.job("/generate", {"prompt": "x"}))
        await soon(fake.begun.wait())
        assert json.loads(record["generate"]["stop_body"]) == await it.job("/stop-stream", {})
        assert json.loads(record["generate"]["generation"]["body"]) == await soon(job)
        reply = {side: [*turns, ["Go on", "Well"]] for side, turns in lost.items()}
        fake.play_until_stopped([{"event": "text_stream", "history": reply}])
        sink = Collected()
        body = {"user_input": "Go on", "history": lost, "stream": True}
        chat = asyncio.create_task(it.job("/chat", body, sink))
        await soon(sink.first.wait())
        await it.job("/stop-stream", {})

        assert {"results": [{"history": reply}]} == await soon(chat)


async def test_a_stream_whose_caller_left_ends_in_the_engine(tmp_path: Path) -> None:
    """legacy/ws_disconnect, legacy/behaviour_ws_disconnect: the next is answered."""
    assert 200 == recorded("legacy/behaviour_ws_disconnect")["status"]
    record = recorded("legacy/ws_disconnect")
    async with slow_classic(tmp_path) as (fake, it):
        fake.play_until_stopped(record["response"]["frames"])
        sink = Collected()
        body = {**record["request"]["body"], "stream": True}
        job = asyncio.create_task(it.job("/generate", body, sink))
        await soon(sink.first.wait())
        job.cancel()
        await soon(fake.closed.wait())
        fake.go_on.set()
        answer = await soon(it.job("/generate", {"prompt": "y"}))

    assert (" small", [{"text": "whole"}]) == (sink.chunks[0]["text"], answer["results"])


async def test_the_model_is_told_while_another_is_loaded(tmp_path: Path) -> None:
    """legacy/behaviour_get_model_during_load: it is answered at once, with the name to come.

    The worker tells no name of a model that can't be used yet.
    """
    assert [200, 200] == [
        status
        for status, *_ in recorded("legacy/behaviour_get_model_during_load")["get_model_during"]
    ]
    loading, go_on = asyncio.Event(), asyncio.Event()
    async with slow_classic(tmp_path) as (fake, it):
        whole = fake.answers.get(
            "model load", {"result": {"model_name": "other", "lora_names": []}}
        )

        async def load(call: Call) -> Any:
            loading.set()
            await go_on.wait()
            return whole

        fake.answers["model load"] = load
        job = asyncio.create_task(it.job("/model", {"action": "load", "model_name": "other"}))
        await soon(loading.wait())
        assert {"result": None} == await soon(it.job("/model"))
        go_on.set()
        await soon(job)
        assert {"result": "other"} == await soon(it.job("/model"))


@dataclass
class SlowTextgen:
    """It has so many slots, and frees one at the next token of a caller who is gone."""

    slots: int
    text: str = "whole"
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    next_token: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    running: set[asyncio.Event] = field(default_factory=set)
    most: int = 0

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)
        self.next_token.set()

    async def script(self, call: Call) -> None:
        if call.path == "/v1/internal/stop-generation":
            for event in self.running:
                event.set()
            await call.answer("OK")
        elif call.path == "/v1/completions":
            await self._complete(call)
        else:
            await call.answer({"status": "ok", "length": 2, "tokens": [1, 2]})

    async def _complete(self, call: Call) -> None:
        async with self._free:
            stopped = asyncio.Event()
            self.running.add(stopped)
            self.most = max(self.most, len(self.running))
            self.begun.put_nowait(None)
            stream = bool(call.body.get("stream"))
            if stream:
                await call.begin_stream()
                await call.raw(_chunk("some", None))
            tasks = [
                asyncio.ensure_future(wait)
                for wait in (self.go_on.wait(), stopped.wait(), self._gone(call))
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            gone = tasks[2].done()
            for task in tasks:
                task.cancel()
            self.running.discard(stopped)
            if not gone:
                text = self.text if self.go_on.is_set() else "some"
                await self._answer(call, text, stream=stream)

    async def _gone(self, call: Call) -> None:
        await call.gone()
        await self.next_token.wait()

    async def _answer(self, call: Call, text: str, *, stream: bool) -> None:
        if stream:
            await call.raw(_chunk("", "stop") + b"data: [DONE]\n\n")
            return
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "text": text, "finish_reason": "stop"}
        await call.answer({"choices": [choice], "usage": usage})


def _chunk(text: str, finish: str | None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


@dataclass
class Textgen:
    fake: SlowTextgen
    dispatch: Dispatch

    async def job(self, endpoint: str, payload: Any = None, sink: Collected | None = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.dispatch.answer(request, sink or Collected(), Progress())

    def start(self, **body: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.job("/v1/completions", {"prompt": "x", **body}))


@asynccontextmanager
async def slow_textgen(
    engine_slots: int, worker_slots: int | None = None
) -> AsyncIterator[Textgen]:
    fake = SlowTextgen(engine_slots)
    async with fake_engine(fake.script) as engine:
        client, host = EngineClient(engine.port), Host(LOADED)
        slots = Slots(worker_slots or engine_slots)
        backend = TextgenBackend(client, host)
        forwarder = TextgenForwarder(client, slots, backend, host)
        try:
            yield Textgen(
                fake, Dispatch(blocking=BlockingApi(backend, slots, None), openai=forwarder)
            )
        finally:
            await client.close()


def texts(answers: list[Any]) -> list[str]:
    return [answer["choices"][0]["text"] for answer in answers]


@pytest.mark.parametrize(
    ("name", "slots", "runs"),
    [
        ("behaviour_parallel", 1, ("parallel4", "parallel10")),
        ("behaviour_parallel_slots4", 4, ("parallel4", "parallel10", "parallel10_stream")),
    ],
)
async def test_parallel_jobs_all_end_in_as_many_slots_as_there_are(
    name: str, slots: int, runs: tuple[str, ...]
) -> None:
    record = recorded(f"modern/{name}")
    for run in runs:
        requests = record[run]["requests"] if isinstance(record[run], dict) else record[run]
        async with slow_textgen(slots) as it:
            stream = run.endswith("stream")
            jobs = [it.start(stream=stream) for _ in requests]
            for _ in range(slots):
                await soon(it.fake.begun.get())
            assert {"status": "ok"}.items() <= (await soon(it.job("/v1/internal/health"))).items()
            assert {"results": [{"tokens": 2}]} == await soon(
                it.job("/token-count", {"prompt": "x"})
            )
            it.fake.go_on.set()
            answers = await soon(asyncio.gather(*jobs))

        assert ["some" if stream else "whole"] * len(requests) == texts(answers)
        assert slots == it.fake.most


@pytest.mark.parametrize("kind", ["disconnect_nonstream", "disconnect_stream"])
async def test_a_job_whose_caller_left_frees_its_slot(kind: str) -> None:
    """modern/behaviour_disconnect: the next request is answered after 0.04 s."""
    record = recorded("modern/behaviour_disconnect")[kind]
    async with slow_textgen(1) as it:
        job = it.start(stream=record["stream"])
        await soon(it.fake.begun.get())
        job.cancel()
        after = it.start()
        await soon(it.fake.begun.get())
        it.fake.go_on.set()

        assert ["whole"] == texts([await soon(after)])
        assert job.cancelled()


async def test_a_caller_who_left_during_a_long_prompt_delays_the_next_one_only() -> None:
    """modern/behaviour_disconnect_prompt_processing: noticed at the next token, 38 s later."""
    assert recorded("modern/behaviour_disconnect_prompt_processing")
    async with slow_textgen(1) as it:
        it.fake.next_token.clear()
        job = it.start()
        await soon(it.fake.begun.get())
        job.cancel()
        after = it.start()
        await asyncio.wait({job})
        assert it.fake.begun.empty()
        it.fake.next_token.set()
        await soon(it.fake.begun.get())
        it.fake.go_on.set()

        assert ["whole"] == texts([await soon(after)])


@pytest.mark.parametrize("kind", ["nonstream", "stream"])
async def test_a_stop_ends_what_runs_with_what_there_is(kind: str) -> None:
    """modern/behaviour_stop_generation."""
    record = recorded("modern/behaviour_stop_generation")[kind]
    async with slow_textgen(1) as it:
        job = it.start(stream=kind == "stream")
        await soon(it.fake.begun.get())
        assert json.loads(record["stop_body"]) == await it.job("/v1/internal/stop-generation", {})

        assert ["some"] == texts([await soon(job)])


@pytest.mark.parametrize(
    ("name", "slots", "stopped"),
    [
        ("behaviour_stop_generation_queue", 1, ["some", "whole", "whole"]),
        ("behaviour_stop_generation_slots4", 4, ["some", "some", "some"]),
    ],
)
async def test_a_stop_is_for_all_that_run_and_for_none_that_wait(
    name: str, slots: int, stopped: list[str]
) -> None:
    assert recorded(f"modern/{name}")
    async with slow_textgen(slots) as it:
        jobs = [it.start() for _ in stopped]
        for _ in range(min(slots, 3)):
            await soon(it.fake.begun.get())
        await it.job("/stop-stream", {})
        first = await soon(jobs[0])
        it.fake.go_on.set()

        assert stopped == texts([first, *await soon(asyncio.gather(*jobs[1:]))])


async def test_an_engine_that_was_idle_in_time_ends_at_once(tmp_path: Path) -> None:
    """modern/behaviour_stop_then_sigterm: it would wait for what runs, unless that is stopped."""
    record = recorded("modern/behaviour_stop_then_sigterm")
    assert (0, 200) == (record["rc"], record["client_status"])
    engine = make(make_checkout(tmp_path / "webui"))
    async with started(engine):
        await soon(engine.stop(LIMIT))

        assert None is engine.model_name


async def test_a_load_that_blocks_every_answer_is_no_death(tmp_path: Path) -> None:
    """modern/behaviour_health_during_load: the health route answered after 0.9 s."""
    status, seconds = recorded("modern/behaviour_health_during_load")["health_during_load"][0]
    async with started(make(make_checkout(tmp_path / "webui"))) as engine:
        died = asyncio.create_task(engine.wait_died())
        url = f"http://127.0.0.1:{engine.settings.engine_port}"
        async with aiohttp.ClientSession() as session:
            load = session.post(f"{url}/v1/internal/model/load", json={"seconds": seconds})
            loading = asyncio.create_task(load.__aenter__())
            await soon(engine.refresh())
            assert status == (await soon(loading)).status

        assert (False, "small.gguf") == (died.done(), engine.model_name)
        died.cancel()
