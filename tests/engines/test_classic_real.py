"""The classic engine against a real checkout: WEBUI_CLASSIC_DIR, and its Python.

WEBUI_CLASSIC_MODEL names one for the CPU in the checkout's models folder (default: the only one).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.engines.fake_classic import low_port
from worker.answerer import Answerer
from worker.client import EngineClient
from worker.engines.choose import make_engine
from worker.engines.classic import ClassicEngine
from worker.errors import EngineBroken, EngineDown, EngineStartFailed, InvalidJob, UnknownRoute
from worker.job import parse_job
from worker.model_errors import ModelUnavailable
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

FOLDER = os.environ.get("WEBUI_CLASSIC_DIR", "")
pytestmark = [
    pytest.mark.webui,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDER, reason="WEBUI_CLASSIC_DIR does not name a checkout"),
    pytest.mark.asyncio(loop_scope="module"),
]
PROMPT = "The capital of France is"
GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 12}
# A whole answer takes longer even on a fast processor; Python collects its garbage four times.
SLOWEST = 12.0
LONG = {"prompt": "Once upon a time there was a", "max_new_tokens": 400, "ban_eos_token": True}
SEED = json.loads((Path(__file__).parent.parent / "data" / "model_info.json").read_text())


@dataclass
class Collected:
    chunks: list[Any] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, event: Any, size: int) -> None:
        self.chunks.append(event)
        self.first.set()


@dataclass
class Running:
    engine: ClassicEngine
    client: EngineClient
    answerer: Answerer
    lines: list[str]

    async def job(self, endpoint: str, payload: Any = None, sink: Collected | None = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.answerer.answer(request, sink or Collected(), Progress())

    async def text(self, **payload: Any) -> str:
        body = {"prompt": PROMPT, **GREEDY, **payload}
        text: str = (await self.job("/generate", body))["results"][0]["text"]
        return text


def make(lines: list[str], **changes: str) -> ClassicEngine:
    environ = {
        **os.environ,
        "WEBUI_DIR": FOLDER,
        "WEBUI_PYTHON": os.environ.get("WEBUI_CLASSIC_PYTHON", ""),
        "MODEL": os.environ.get("WEBUI_CLASSIC_MODEL", ""),
        "ENGINE_PORT": str(low_port()),
        "ENGINE_ARGS": "--cpu",
        **changes,
    }
    engine = make_engine(Settings.from_env(environ), environ, lines.append)
    assert isinstance(engine, ClassicEngine)
    return engine


@asynccontextmanager
async def running(**changes: str) -> AsyncIterator[Running]:
    lines: list[str] = []
    engine = make(lines, **changes)
    client = EngineClient(engine.port)
    try:
        engine.spawn()
        print(await engine.wait_ready(client.session))  # noqa: T201 - shown with -s
        yield Running(engine, client, engine.answerer(client, Slots(engine.slots)), lines)
    finally:
        await engine.stop(0)
        await client.close()


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model under the name good, one with its weights cut off, and an empty folder."""
    folder = tmp_path_factory.mktemp("models")
    real = make([]).model_path
    (folder / "good").symlink_to(real)
    (folder / "empty").mkdir()
    shutil.copytree(real, folder / "cut", ignore=shutil.ignore_patterns("*.safetensors"))
    with (real / "model.safetensors").open("rb") as file:
        (folder / "cut" / "model.safetensors").write_bytes(file.read(1_000_000))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(models_dir: Path) -> AsyncIterator[Running]:
    """One engine for the tests that leave it usable."""
    async with running(MODELS_DIR=str(models_dir), MODEL="good") as started:
        yield started


async def test_model_is_its_name(it: Running) -> None:
    assert [{"result": "good"}] * 2 == [await it.job("/model"), await it.job("/model", {})]


async def test_info_has_the_seeds_keys_and_no_absolute_path(it: Running) -> None:
    result = (await it.job("/model", {"action": "info"}))["result"]
    counts = {
        part: len(set(SEED["result"][part]) & set(result[part]))
        for part in ("shared.args", "shared.settings")
    }
    print(counts, {part: len(SEED["result"][part]) for part in counts})  # noqa: T201 - as above
    assert set(SEED["result"]) == set(result)
    assert not [value for value in result["shared.args"].values() if str(value).startswith("/")]


async def test_list_has_the_models(it: Running) -> None:
    names = (await it.job("/model", {"action": "list"}))["result"]

    assert ("None", {"cut", "empty", "good"}) == (names[0], set(names[1:]))


async def test_generate_goes_on_from_the_prompt(it: Running) -> None:
    assert (await it.text()).startswith(" Paris")


async def test_a_beam_search_is_what_the_blocking_api_gives(it: Running) -> None:
    body = {"prompt": PROMPT, **GREEDY, "num_beams": 2}
    theirs = await it.client.json("POST", "/api/v1/generate", body)

    assert theirs == await it.job("/generate", body)


@pytest.mark.parametrize(
    "changes",
    [{}, {"stopping_strings": ["\n"]}, {"do_sample": True, "seed": 3}, {"preset": "simple-1"}],
)
async def test_generate_is_what_the_blocking_api_gives(
    it: Running, changes: dict[str, Any]
) -> None:
    body = {"prompt": PROMPT, **GREEDY, "seed": 1, **changes}
    theirs = await it.client.json("POST", "/api/v1/generate", body)

    assert theirs == await it.job("/generate", body)


@pytest.mark.parametrize("mode", ["chat", "instruct", "chat-instruct"])
async def test_chat_is_what_the_blocking_api_gives(it: Running, mode: str) -> None:
    history = {"internal": [["Hi", "Hello."]], "visible": [["Hi", "Hello."]]}
    body = {"user_input": "Who <b>are</b> you?", "mode": mode, "history": history, **GREEDY}
    theirs = await it.client.json("POST", "/api/v1/chat", body)

    assert theirs == await it.job("/chat", body)


async def test_tokens_are_counted(it: Running) -> None:
    assert {"results": [{"tokens": 5}]} == await it.job("/token-count", {"prompt": PROMPT})


async def test_a_stream_is_the_same_text_in_frames(it: Running) -> None:
    sink = Collected()
    body = {"prompt": PROMPT, **GREEDY}
    answer = await it.job("/generate", {**body, "stream": True}, sink)
    joined = "".join(chunk.get("text", "") for chunk in sink.chunks)

    assert answer == await it.job("/generate", body)
    assert (answer["results"][0]["text"], {"event": "stream_end"}) == (joined, sink.chunks[-1])


async def test_a_chats_stream_ends_with_the_whole_history(it: Running) -> None:
    sink = Collected()
    answer = await it.job("/chat", {"user_input": "Hello", **GREEDY, "stream": True}, sink)

    assert answer["results"][0]["history"] == sink.chunks[-2]["history"]


@pytest.mark.parametrize("beams", [1, 2])
async def test_a_cancelled_generation_frees_the_engine(it: Running, beams: int) -> None:
    sink = Collected()
    body = {**LONG, "num_beams": beams, "do_sample": False, "stream": beams == 1}
    job = asyncio.create_task(it.job("/generate", body, sink))
    await (sink.first.wait() if beams == 1 else asyncio.sleep(2))
    began = time.monotonic()
    job.cancel()
    await asyncio.wait({job})
    cancelled = time.monotonic() - began
    await it.text(max_new_tokens=1)
    seconds = time.monotonic() - began
    print(f"{beams} beams: cancelled {cancelled:.2f} s, next {seconds:.2f} s")  # noqa: T201

    assert (True, True) == (job.cancelled(), seconds < SLOWEST)


@pytest.mark.parametrize("endpoint", ["/generate", "/chat", "/v1/completions"])
async def test_stop_stream_gives_what_there_is(it: Running, endpoint: str) -> None:
    sink = Collected()
    body = {**LONG, "user_input": "Tell me a long story.", "stream": True, "max_tokens": 400}
    job = asyncio.create_task(it.job(endpoint, body, sink))
    while len(sink.chunks) < 4:  # noqa: ASYNC110 - the engine is another process
        await asyncio.sleep(0.05)
    began = time.monotonic()
    await it.job("/stop-stream", {})
    answer = await job
    print(f"{endpoint} stopped in {time.monotonic() - began:.2f} s")  # noqa: T201 - as above

    result = answer["choices"][0] if "choices" in answer else answer["results"][0]
    said = result["history"]["internal"][-1][1] if "history" in result else result["text"]
    assert 0 < len(said) < 400
    assert (await it.text()).startswith(" Paris")


@pytest.mark.parametrize(
    ("endpoint", "payload", "error", "says"),
    [
        ("/generate", {}, InvalidJob, "prompt is missing"),
        ("/generate", {"prompt": "x", "temperature": "hot"}, InvalidJob, "temperature is 'hot'"),
        ("/generate", {"prompt": "x", "temperature": 0}, InvalidJob, "send do_sample false"),
        ("/generate", {"prompt": "x", "preset": "no"}, UnknownRoute, "preset 'no'"),
        ("/generate", {"prompt": "x", "num_beams": 2, "stream": True}, InvalidJob, "streamed"),
        ("/generate", {"prompt": "x", "mirostat_mode": 2}, EngineBroken, "the engine failed"),
        ("/chat", {"user_input": "x", "character": "../x"}, UnknownRoute, "does not exist"),
        ("/chat", {"user_input": "x", "instruction_template": "No"}, UnknownRoute, "'No'"),
        ("/model", {"action": "fly"}, UnknownRoute, "there is no action 'fly'"),
        ("/v1/embeddings", {"input": "x"}, UnknownRoute, "this engine has no POST"),
        ("/v1/completions", {"prompt": "x", "logprobs": 1}, InvalidJob, "logprobs"),
        ("/v1/completions", {"prompt": "word " * 9000}, InvalidJob, "the context holds 8192"),
    ],
)
async def test_a_wrong_job_is_a_clear_error(
    it: Running, endpoint: str, payload: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        await it.job(endpoint, payload)
    print(caught.value)  # noqa: T201 - as above

    assert says in str(caught.value)


async def test_openai_text_completion(it: Running) -> None:
    body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    answer = await it.job("/v1/completions", body)
    print(json.dumps(answer))  # noqa: T201 - as above

    usage = {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
    assert (usage, "length") == (answer["usage"], answer["choices"][0]["finish_reason"])
    assert answer["choices"][0]["text"].startswith(" Paris")


async def test_openai_chat_completion_and_its_stream(it: Running) -> None:
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    body = {"messages": messages, "max_tokens": 24, "temperature": 0}
    body["instruction_template"] = "ChatML"
    sink = Collected()
    answer = await it.job("/v1/chat/completions", body)
    await it.job("/v1/chat/completions", {**body, "stream": True}, sink)
    print(json.dumps(answer))  # noqa: T201 - as above

    events = [json.loads(chunk[6:]) for chunk in sink.chunks[:-1]]
    said = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert (answer["choices"][0]["message"]["content"], "data: [DONE]\n\n") == (
        said,
        sink.chunks[-1],
    )
    assert "Paris" in said


async def test_load_and_unload_really_do(it: Running) -> None:
    unloaded = (await it.job("/model", {"action": "unload"}))["result"]["model_name"]
    with pytest.raises(EngineDown, match="no model is loaded"):
        await it.text()
    with pytest.raises(EngineDown, match="no model is loaded"):
        await it.job("/token-count", {"prompt": "x"})
    began = time.monotonic()
    loaded = await it.job("/model", {"action": "load", "model_name": "good"})
    print(f"load took {time.monotonic() - began:.2f} s")  # noqa: T201 - as above

    assert (None, "good") == (unloaded, loaded["result"]["model_name"])
    assert (await it.text()).startswith(" Paris")


@pytest.mark.parametrize("name", ["cut", "empty"])
async def test_a_model_that_can_not_be_loaded_is_failed_and_none_is_named(
    it: Running, name: str
) -> None:
    with pytest.raises(EngineStartFailed) as caught:
        await it.job("/model", {"action": "load", "model_name": name})
    named = await it.job("/model")
    raw = await it.client.json("GET", "/api/v1/model")
    await it.job("/model", {"action": "load", "model_name": "good"})
    print(caught.value)  # noqa: T201 - as above

    assert ({"result": None}, {"result": None}) == (named, raw)
    assert (await it.text()).startswith(" Paris")


async def test_an_unknown_model_changes_nothing(it: Running) -> None:
    with pytest.raises(UnknownRoute, match="there are: "):
        await it.job("/model", {"action": "load", "model_name": "../good"})

    assert {"result": "good"} == await it.job("/model")


async def test_a_taken_port_is_told_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        engine = make([], ENGINE_PORT=str(taken.getsockname()[1]))
        with pytest.raises(EngineStartFailed, match="is taken"):
            engine.spawn()


async def test_a_port_that_is_taken_during_the_start_is_told_at_once() -> None:
    engine = make([])
    client = EngineClient(engine.port)
    engine.spawn()
    try:
        with (
            socket.create_server(("127.0.0.1", engine.port)),
            pytest.raises(EngineStartFailed) as caught,
        ):
            await engine.wait_ready(client.session)
        print(caught.value)  # noqa: T201 - as above
        assert "its port is taken" in str(caught.value)
    finally:
        await engine.stop(0)
        await client.close()


@pytest.mark.parametrize(
    ("name", "says"),
    [("cut", "model.safetensors is damaged"), ("empty", "empty has no weights in it")],
)
async def test_a_model_that_is_not_whole_is_told_before_anything_starts(
    models_dir: Path, name: str, says: str
) -> None:
    with pytest.raises(ModelUnavailable, match=says) as caught:
        make([], MODELS_DIR=str(models_dir), MODEL=name).spawn()

    assert str(models_dir) not in str(caught.value)


async def test_a_model_of_an_unknown_kind_ends_the_start_with_its_cause(
    models_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(models_dir / "good", tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps({**config, "model_type": "odd"}))
    lines: list[str] = []
    engine = make(lines, MODELS_DIR=str(tmp_path), MODEL="odd")
    client = EngineClient(engine.port)
    engine.spawn()
    try:
        with pytest.raises(EngineStartFailed) as caught:
            await engine.wait_ready(client.session)
        assert "the engine ended: it does not know this kind of model" == str(caught.value)
        assert [line for line in lines if line.startswith("| ")]
    finally:
        await engine.stop(0)
        await client.close()


async def test_a_killed_engine_is_told_and_can_be_started_again() -> None:
    async with running() as it:
        pid = it.engine.pid
        assert pid is not None
        sink = Collected()
        job = asyncio.create_task(it.job("/generate", {**LONG, "stream": True}, sink))
        await sink.first.wait()
        os.kill(pid, signal.SIGKILL)
        cause = await asyncio.wait_for(it.engine.wait_died(), 5)
        with pytest.raises(EngineBroken) as caught:
            await job
        print(cause, "|", caught.value)  # noqa: T201 - as above
        it.engine.spawn()
        await it.engine.wait_ready(it.client.session)

        assert "killed by signal 9" in cause
        assert (await it.text()).startswith(" Paris")
