"""Worlds like that of fuzz.py with text-generation-webui in the engine's place, old and new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web

from chaos.dialect import Answer, answer
from tests.engines.fake_classic import END, MODEL, FakeClassic, fake_classic, make_checkout
from tests.engines.test_current_recordings import LOADED, Host
from tests.engines.test_current_recordings import MODEL as TEXTGEN_MODEL
from tests.fake_engine import Call, fake_engine
from tests.fuzz import World, in_own_loop, wire
from worker.blocking import BlockingApi
from worker.client import EngineClient
from worker.dispatch import Dispatch
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
from worker.runner import Runner
from worker.slots import Slots


@contextmanager
def current_world() -> Iterator[World]:
    """Today's textgen."""
    with in_own_loop(_current_world) as made:
        yield made


@asynccontextmanager
async def _current_world() -> AsyncIterator[World]:
    made: World

    async def lie(call: Call) -> None:
        running.calls.clear()
        await call.raw(wire(_textgen(call), made.lie))

    async with fake_engine(lie) as running:
        client, slots, host = EngineClient(running.port), Slots(2), Host(LOADED)
        backend = TextgenBackend(client, host)
        dispatch = Dispatch(
            blocking=BlockingApi(backend, slots, None),
            openai=TextgenForwarder(client, slots, backend, host),
        )
        runner = Runner(dispatch, job_timeout=5, platform_first=0)
        made = World(asyncio.get_running_loop(), runner, slots)
        yield made
        await client.close()


def _textgen(call: Call) -> Answer:
    """What textgen has beside the OpenAI-compatible routes."""
    words = str((call.body or {}).get("text", "")).split()
    own: dict[str, Any] = {
        "/decode": {"text": "Hello"},
        "/v1/internal/encode": {"tokens": list(range(len(words) + 1)), "length": len(words) + 1},
        "/v1/internal/token-count": {"length": len(words)},
        "/v1/internal/chat-prompt": {"prompt": "Hello"},
        "/v1/internal/model/info": {"model_name": TEXTGEN_MODEL, "lora_names": []},
        "/v1/internal/model/list": {"model_names": [TEXTGEN_MODEL]},
        "/v1/internal/lora/list": {"lora_names": []},
        Host.extra_flags_path: {"ok": True},
        "/v1/internal/stop-generation": "OK",
        "/v1/internal/model/load": "OK",
        "/v1/internal/model/unload": "OK",
    }
    if call.path in own:
        return Answer(own[call.path])
    return answer(call.method, call.path, call.body)


@contextmanager
def classic_world() -> Iterator[World]:
    """Text-generation-webui of 2023."""
    with in_own_loop(_classic_world) as made:
        yield made


@asynccontextmanager
async def _classic_world() -> AsyncIterator[World]:
    made: World

    async def http(call: Call) -> Any:
        fake.calls.clear()
        if made.lie is None:
            return fake_answer(call)
        head = f"HTTP/1.0 {made.lie.status} {HTTPStatus(made.lie.status).phrase}\r\n"
        return f"{head}Content-Type: {made.lie.kind}\r\n\r\n".encode("latin-1") + made.lie.body

    async def frames(socket: web.WebSocketResponse, body: Any) -> None:
        fake.calls.clear()
        is_chat = "user_input" in body
        for number in range(3 if made.lie is None else made.lie.keep):
            await socket.send_json(_frame(number, is_chat=is_chat))
        fake.print(*fake.generation)
        if made.lie is None:
            await socket.send_json(END)
        else:
            await socket.send_str(made.lie.body.decode("utf-8", "replace"))
        await socket.close()

    fake = FakeClassic()
    keys = ("generate", "chat", "token-count", "stop-stream", "model")
    actions = ("list", "info", "load", "unload")
    fake.answers = dict.fromkeys((*keys, *(f"model {action}" for action in actions)), http)
    fake.frames = frames

    with TemporaryDirectory() as folder:
        checkout = make_checkout(Path(folder))
        async with fake_classic(checkout, fake, stop_seconds=0.1) as running:
            runner = Runner(running.answerer, job_timeout=5, platform_first=0)
            made = World(asyncio.get_running_loop(), runner, running.slots)
            made.reset = lambda: running.engine.set_model(MODEL)
            yield made


def fake_answer(call: Call) -> Any:
    """What an honest classic answers."""
    body = call.body if isinstance(call.body, dict) else {}
    action = f" {body['action']}" if "action" in body else ""
    known = FakeClassic().default(call.path.removeprefix("/api/v1/") + action, body)
    return known or {"results": [{"history": _history(2)}], "result": "stand-in"}


def _frame(number: int, *, is_chat: bool) -> dict[str, Any]:
    """One frame of a stream."""
    what = {"history": _history(number)} if is_chat else {"text": " word" if number else ""}
    return {"event": "text_stream", "message_num": number, **what}


def _history(words: int) -> dict[str, Any]:
    turn = ["Hello", " word" * words]
    return {"internal": [turn], "visible": [turn]}
