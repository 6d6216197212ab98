"""A classic webui in miniature: HTTP/1.0 and websockets that play what a test tells them to."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.fake_engine import Call, fake_engine
from worker.client import EngineClient
from worker.contract.templates import load_template, template_names
from worker.dispatch import Dispatch
from worker.engines.classic_api import ClassicApi
from worker.engines.classic_generate import ClassicGenerator
from worker.engines.classic_log import ClassicLog
from worker.engines.classic_models import ClassicModels
from worker.engines.classic_request import Preparer
from worker.engines.lora_routes import LoraRoutes
from worker.engines.loras import Loras
from worker.engines.openai_from_blocking import OpenAiFromBlocking
from worker.job import parse_job
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

MODEL = "SmolLM2-135M-Instruct"
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
DONE = "Output generated in 0.10 seconds (50.00 tokens/s, {} tokens, context 5, seed 42)"
END = {"event": "stream_end", "message_num": 9}
INFO = {
    "model_name": MODEL,
    "lora_names": [],
    "shared.settings": {"truncation_length": 100, "instruction_template": "ChatML"},
    "shared.args": {"model_dir": "/srv/models/", "api_key": "sk-canary", "loader": None},
}
Frames = Callable[[web.WebSocketResponse, Any], Any]


@dataclass
class FakeClassic:
    """Answers by path and action; `frames` plays a websocket. Keeps what it was asked."""

    log: ClassicLog = field(default_factory=ClassicLog)
    answers: dict[str, Any] = field(default_factory=dict)
    frames: Frames | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    checkout: Path = Path()
    generation: list[str] = field(default_factory=lambda: [DONE.format(8)])

    async def http(self, call: Call) -> None:
        body = call.body if isinstance(call.body, dict) else {}
        key = call.path.removeprefix("/api/v1/") + (
            f" {body['action']}" if "action" in body else ""
        )
        self.calls.append((key, call.body))
        if key == "stop-stream":
            self.stopped.set()
        answer = self.answers.get(key, self.default(key, body))
        if callable(answer):
            answer = await answer(call)
        if key == "generate":
            self.print(*self.generation)
        if answer is None:
            return  # closed without a word
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await call.raw(data if data.startswith(b"HTTP") else HEAD + data)

    def default(self, key: str, body: dict[str, Any]) -> Any:
        """What it answers when a test says nothing else."""
        if key == "token-count":
            return {"results": [{"tokens": len(body["prompt"].split())}]}
        return {
            "model list": {"result": ["None", MODEL, "other"]},
            "model info": {"result": INFO},
            "model load": {"result": INFO},
            "model unload": {"result": {**INFO, "model_name": None}},
            "stop-stream": {"results": "success"},
            "generate": {"results": [{"text": " Paris"}]},
        }.get(key, b"")

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        body = (await socket.receive()).json()
        self.calls.append((request.path.removeprefix("/api/v1/"), body))
        assert self.frames is not None
        await self.frames(socket, body)
        self.closed.set()
        return socket

    def play(
        self, frames: Sequence[Any], code: int | None = None, lines: Sequence[str] = ()
    ) -> None:
        """Send these frames; then print, and close with the code if there is one."""

        async def script(socket: web.WebSocketResponse, body: Any) -> None:
            for frame in frames:
                await socket.send_json(frame)
            self.print(*(lines or self.generation))
            await (socket.close(code=code) if code else socket.receive())

        self.frames = script

    def print(self, *lines: str) -> None:
        for line in lines:
            self.log.feed(line)

    def sent(self, key: str) -> Any:
        """The body of the last call of this kind."""
        return next(body for name, body in reversed(self.calls) if name == key)


@dataclass
class Engine:
    """The state that ClassicEngine has."""

    model_name: str | None = MODEL
    aborted: int = 0
    loras: Loras = field(default_factory=lambda: Loras(None, {}, ()))

    def start_loras(self, name: str) -> tuple[str, ...]:
        return self.loras.start if name == MODEL else ()

    def set_model(self, name: str | None) -> None:
        self.model_name = name

    def abort(self) -> None:
        self.aborted += 1


@dataclass
class Collected:
    chunks: list[Any] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, event: Any, size: int) -> None:
        self.chunks.append(event)
        self.first.set()


@dataclass
class Running:
    """An answerer on a fake."""

    fake: FakeClassic
    engine: Engine
    answerer: Dispatch
    slots: Slots

    async def job(self, endpoint: str, payload: Any = None, sink: Collected | None = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.answerer.answer(request, sink or Collected(), Progress())


@asynccontextmanager
async def fake_classic(
    checkout: Path,
    fake: FakeClassic,
    *,
    held_back: int = 1,
    stop_seconds: float = 5.0,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Everything but the process, on a fake."""
    fake.checkout = checkout
    app = web.Application()
    app.router.add_get("/api/v1/{kind}", fake.websocket)
    async with fake_engine(fake.http) as http, TestServer(app) as websockets:
        client = EngineClient(http.port)
        engine, slots, chosen = Engine(), Slots(1), Settings(**settings)
        preparer = Preparer(checkout, None)
        generator = ClassicGenerator(
            client,
            fake.log,
            streaming_port=lambda: websockets.port or 0,
            held_back=lambda: held_back,
            abort=engine.abort,
            stop_seconds=stop_seconds,
        )

        async def warm_up() -> None:
            return

        models = ClassicModels(client, slots, engine=engine, warm_up=warm_up, settings=chosen)
        blocking = ClassicApi(client, slots, models=models, generator=generator, preparer=preparer)
        openai = OpenAiFromBlocking(
            slots, blocking=blocking, models=models, generator=generator, preparer=preparer
        )
        try:
            loras = LoraRoutes(openai, slots, models, admin=chosen.model_admin)
            yield Running(fake, engine, Dispatch(blocking=blocking, openai=loras), slots)
        finally:
            await client.close()


def make_checkout(folder: Path) -> Path:
    """The folders of a checkout with what the recordings name."""
    files = {"characters/Assistant.yaml": "name: AI\ncontext: An AI.\n"}
    files["characters/Example.yaml"] = "name: Chiharu\ncontext: An engineer.\n"
    for preset in ("Contrastive Search", "Debug-deterministic", "Mirostat", "simple-1"):
        files[f"presets/{preset}.yaml"] = "temperature: 0.7\n"
    for name in template_names():
        template = load_template(name)
        fields = {
            key: getattr(template, key) for key in ("user", "bot", "turn_template", "context")
        }
        files[f"instruction-templates/{name}.yaml"] = json.dumps(fields)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def low_port() -> int:
    """A port that the system gives to no outgoing connection: it is used a while later."""
    return random.randrange(10_000, 30_000)  # noqa: S311 - nothing secret
