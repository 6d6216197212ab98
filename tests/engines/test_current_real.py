"""The current engine against a real checkout: WEBUI_CURRENT_DIR, and its Python.

WEBUI_CURRENT_MODEL names a GGUF in the checkout's models folder (default: the only model there).
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.upstream import LOAD_ARGS
from worker.answerer import Answerer
from worker.client import EngineClient
from worker.engines.choose import make_engine
from worker.engines.current import CurrentEngine
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineStartFailed,
    InvalidJob,
    JobError,
    SettingsError,
)
from worker.job import parse_job
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

FOLDER = os.environ.get("WEBUI_CURRENT_DIR", "")
pytestmark = [
    pytest.mark.webui,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not FOLDER, reason="WEBUI_CURRENT_DIR does not name a checkout"),
]
SMALL = {"max_new_tokens": 8, "temperature": 0.01, "seed": 1}


class Collected:
    def __init__(self) -> None:
        self.chunks: list[Any] = []

    async def put(self, event: Any, size: int) -> None:
        self.chunks.append(event)


@dataclass
class Running:
    engine: CurrentEngine
    client: EngineClient
    answerer: Answerer

    async def job(self, endpoint: str, payload: Any = None, sink: Collected | None = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.answerer.answer(request, sink or Collected(), Progress())

    async def state(self) -> dict[str, Any]:
        url = self.client.base_url + self.engine.probe_path
        async with self.client.session.get(url) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def until_busy(self, busy: bool) -> None:
        """Poll the engine, another process, until it generates or does not."""
        while bool((await self.state())["busy"]) is not busy:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


def make(**changes: str) -> CurrentEngine:
    environ = {
        **os.environ,
        "WEBUI_DIR": FOLDER,
        "WEBUI_PYTHON": os.environ.get("WEBUI_CURRENT_PYTHON", ""),
        "MODEL": os.environ.get("WEBUI_CURRENT_MODEL", ""),
        "ENGINE_PORT": str(free_port()),
        "ENGINE_SLOTS": "2",
        "MODEL_ADMIN": "all",
        **changes,
    }
    engine = make_engine(Settings.from_env(environ), environ, lambda line: None)
    assert isinstance(engine, CurrentEngine)
    return engine


@asynccontextmanager
async def running(**changes: str) -> AsyncIterator[Running]:
    engine = make(**changes)
    client = EngineClient(engine.settings.engine_port)
    try:
        engine.spawn()
        await engine.wait_ready(client.session)
        yield Running(engine, client, engine.answerer(client, Slots(engine.slots)))
    finally:
        await engine.stop(0)
        await client.close()


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, but of an architecture that there is not."""
    strange = tmp_path_factory.mktemp("models") / "strange.gguf"
    shutil.copy(make().launch.model_path, strange)
    with strange.open("r+b") as file:
        # The key, its type and length, and the name itself.
        file.seek(file.read(4096).index(b"general.architecture") + 20 + 4 + 8)
        file.write(b"x")
    return strange


async def test_the_five_endpoints_answer_in_the_blocking_apis_shapes() -> None:
    async with running() as it:
        name = it.engine.launch.model
        assert {"result": name} == await it.job("/model")
        info = (await it.job("/model", {"action": "info"}))["result"]
        assert {"model_name", "lora_names", "shared.args", "shared.settings"} == set(info)
        read = ("truncation_length", "instruction_template")
        assert [2048, "None"] == [info["shared.settings"][key] for key in read]
        assert name in (await it.job("/model", {"action": "list"}))["result"]
        text = (await it.job("/generate", {"prompt": "The capital of France is", **SMALL}))[
            "results"
        ][0]["text"]
        assert "Paris" in text
        chat = await it.job("/chat", {"user_input": "Say hi", "mode": "instruct", **SMALL})
        assert ["internal", "visible"] == sorted(chat["results"][0]["history"])
        assert 0 < (await it.job("/token-count", {"prompt": "a b"}))["results"][0]["tokens"]
        assert {"results": "success"} == await it.job("/stop-stream", {})


async def test_streams_end_with_their_end_and_lies_become_errors() -> None:
    async with running() as it:
        sink = Collected()
        body = {"prompt": "The capital of France is", "stream": True, **SMALL}
        whole = await it.job("/generate", body, sink)
        frames = [chunk for chunk in sink.chunks if chunk["event"] == "text_stream"]
        assert whole["results"][0]["text"] == "".join(frame["text"] for frame in frames)
        sink = Collected()
        await it.job("/v1/completions", {"prompt": "x", "max_tokens": 4, "stream": True}, sink)
        assert "data: [DONE]\n\n" == sink.chunks[-1]
        with pytest.raises(InvalidJob, match="5001 tokens and the context holds 2048"):
            await it.job("/v1/completions", {"prompt": "word " * 5000, "max_tokens": 4})
        with pytest.raises(JobError, match="max_tokens must be greater than or equal to 0"):
            await it.job("/v1/completions", {"prompt": "x", "max_tokens": -1})


async def test_a_sound_file_is_answered_with_a_text_or_with_one_sentence() -> None:
    async with running() as it:
        file = {"name": "a.wav", "base64": base64.b64encode(b"RIFF" + bytes(2000)).decode()}
        with pytest.raises(EngineBroken, match="works for no file"):
            await it.job("/v1/audio/transcriptions", {"file": file})
        assert (await it.job("/generate", {"prompt": "x", **SMALL}))["results"]


async def test_a_cancelled_generation_frees_its_slot_within_two_seconds() -> None:
    async with running() as it:
        body = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}
        task = asyncio.create_task(it.job("/generate", body))
        await it.until_busy(True)
        task.cancel()
        since = time.monotonic()
        await it.until_busy(False)
        assert time.monotonic() - since < 2


async def test_a_load_and_an_unload_are_verified() -> None:
    async with running() as it:
        name = it.engine.launch.model
        unloaded = await it.job("/model", {"action": "unload"})
        assert None is unloaded["result"]["model_name"]
        with pytest.raises(EngineDown, match="no model is loaded"):
            await it.job("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        load = {"action": "load", "model_name": name}
        for args in ({}, LOAD_ARGS):
            loaded = await it.job("/model", {**load, "args": args})
            assert name == loaded["result"]["model_name"]
            assert 2048 == it.engine.state.context


async def test_a_killed_llama_server_is_noticed_within_a_second() -> None:
    async with running() as it:
        os.kill((await it.state())["child"], 9)
        died = await asyncio.wait_for(it.engine.wait_died(), 1)
        expected = "the engine's llama-server ended: killed by signal 9"
        assert died.startswith(expected)


async def test_a_taken_port_stops_the_start_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        engine = make(ENGINE_PORT=str(taken.getsockname()[1]))
        with pytest.raises(EngineStartFailed, match=r"port [0-9]+ is taken"):
            engine.spawn()


async def test_a_model_that_is_not_there_is_told_with_the_models_that_are() -> None:
    with pytest.raises(SettingsError, match=r"'no-such'.* one of the models"):
        make(MODEL="no-such")


async def test_a_broken_model_fails_the_start_though_the_engine_calls_itself_healthy(
    broken_model: Path,
) -> None:
    with pytest.raises(EngineStartFailed, match="it does not know this kind of model"):
        async with running(MODEL=str(broken_model)):
            pass
