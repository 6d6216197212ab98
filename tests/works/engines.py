"""The three engines, real or as they were recorded, each behind the worker's own runner."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.engines.fake_classic import DONE, END, FakeClassic, fake_classic, low_port, make_checkout
from tests.engines.test_current_recordings import LOADED, Host
from tests.fake_engine import Call, fake_engine
from tests.lora import write_gguf, write_peft
from tests.works.examples import LORA, Example, cell
from worker.blocking import BlockingApi
from worker.client import EngineClient
from worker.dispatch import Dispatch
from worker.engines.choose import make_engine
from worker.engines.lora_routes import LoraRoutes
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
from worker.runner import Runner
from worker.service import make_runner, make_supervisor
from worker.settings import Settings
from worker.slots import Slots
from worker.stream import Channel

CONTRACT = Path(__file__).parents[1] / "contract"
# Options and endpoints that nothing was recorded with: only a real engine can tell.
UNRECORDED = frozenset(
    (
        *("grammar_string", "response_format", "logprobs", "args"),
        *("/v1/internal/lora/load", "/v1/internal/lora/unload"),
    )
)


@dataclass(frozen=True)
class Works:
    """An engine that jobs can be tried on.

    model: its own name of the model; unknown: options and endpoints that it can't tell of.
    """

    runner: Runner
    model: str
    unknown: frozenset[str] = frozenset()

    async def column(self, examples: list[Example]) -> dict[str, str]:
        """Run the examples in their order: what the table says of each."""
        told = [
            example for example in examples if not self.unknown & {example.path, *example.options}
        ]
        return {example.name: await self._cell(example) for example in told}

    async def _cell(self, example: Example) -> str:
        channel = Channel(self.runner.merger())
        reading = asyncio.create_task(_all_chunks(channel))
        outcome = await self.runner.run(
            {"id": "j1", "input": example.input_for(self.model)}, channel
        )
        channel.close()
        return cell(example, outcome, await reading)


async def _all_chunks(channel: Channel) -> list[Any]:
    chunks: list[Any] = []
    while more := await channel.take():
        chunks += more
    return chunks


@asynccontextmanager
async def real(**environ: str) -> AsyncIterator[Works]:
    """The engine that these settings mean; there is a LoRA for it."""
    async with AsyncExitStack() as stack:
        loras = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_gguf(loras / f"{LORA}.gguf", seed=1)
        write_peft(loras / LORA, seed=1)
        own = {"ENGINE_PORT": str(low_port()), "ENGINE_SLOTS": "1", "MODEL_ADMIN": "all"}
        whole = {**os.environ, **own, "LORAS_DIR": str(loras), **environ}
        settings = Settings.from_env(whole)
        engine = make_engine(settings, whole, lambda line: None)
        client = EngineClient(settings.engine_port)
        stack.push_async_callback(client.close)
        stack.push_async_callback(engine.stop, 0)
        engine.spawn()
        await engine.wait_ready(client.session)
        supervisor = make_supervisor(settings, engine, client)
        supervisor.ready.set()
        yield Works(make_runner(settings, engine, client, supervisor), engine.model_name or "")


def embedded() -> Any:
    """llama.cpp within the worker."""
    return real(ENGINE="embedded", WEBUI_DIR="")


def real_classic() -> Any:
    """The checkout that WEBUI_CLASSIC_DIR names."""
    return real(**_webui("CLASSIC"), ENGINE_ARGS="--cpu")


def real_current() -> Any:
    """The checkout that WEBUI_CURRENT_DIR names."""
    return real(**_webui("CURRENT"))


def _webui(generation: str) -> dict[str, str]:
    def of(part: str) -> str:
        return os.environ.get(f"WEBUI_{generation}_{part}", "")

    return {"WEBUI_DIR": of("DIR"), "WEBUI_PYTHON": of("PYTHON"), "MODEL": of("MODEL")}


@asynccontextmanager
async def recorded_classic(folder: Path) -> AsyncIterator[Works]:
    """The classic as it answered on 2023-11-07."""
    fake = FakeClassic(generation=[DONE.format(8)])
    for key, name in {
        "model": "legacy_20231107/get_model",
        "model info": "legacy_20231107/post_model_info",
        "model list": "legacy_20231107/post_model_list",
        "model load": "legacy/post_model_load",
        "model unload": "legacy/post_model_unload",
        "token-count": "legacy_20231107/post_token_count",
        "stop-stream": "legacy/post_stop_stream_idle",
        "generate": "legacy_20231107/post_generate_greedy",
    }.items():
        fake.answers[key] = _recording(name)["response"]["body"]
    texts = _recording("legacy/ws_stream")["response"]["frames"]
    chat = _recording("legacy_20231107/post_chat_chat_default")["response"]["body"]["results"][0]

    async def play(socket: web.WebSocketResponse, body: Any) -> None:
        frames = [{"event": "text_stream", **chat}, END] if "user_input" in body else texts
        for frame in frames:
            await socket.send_json(frame)
        fake.print(*fake.generation)
        await socket.receive()

    fake.frames = play
    async with fake_classic(make_checkout(folder), fake) as it:
        yield Works(Runner(it.answerer, job_timeout=30), it.engine.model_name or "", UNRECORDED)


@asynccontextmanager
async def recorded_current(_: Path) -> AsyncIterator[Works]:
    """Today's textgen as it was recorded; a route that it does not have is its 404."""
    host = Host(LOADED)
    records = [
        json.loads(file.read_text("utf-8")) for file in sorted(CONTRACT.glob("modern/*.json"))
    ]

    async def script(call: Call) -> None:
        if call.path == Host.extra_flags_path:
            await call.answer("OK")
            return
        answer = _recorded_answer(records, call)
        if call.path.endswith("model/unload"):
            host.state = replace(host.state, model=None)
        elif call.path.endswith("model/load"):
            host.state = LOADED
        body, kind = answer["body"], (answer.get("headers") or {}).get("content-type", "")
        raw = body.encode() if isinstance(body, str) and "json" not in kind else body
        await call.answer(raw, status=answer["status"], kind=kind)

    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(fake_engine(script))
        client = EngineClient(engine.port)
        stack.push_async_callback(client.close)
        slots = Slots(1)
        backend = TextgenBackend(client, host)
        dispatch = Dispatch(
            blocking=BlockingApi(backend, slots, None),
            openai=LoraRoutes(
                TextgenForwarder(client, slots, backend, host), slots, backend.models, admin="all"
            ),
        )
        yield Works(Runner(dispatch, job_timeout=30), LOADED.model or "", UNRECORDED)


def _recorded_answer(records: list[Any], call: Call) -> Any:
    """The first recorded answer to such a request, in the form that is asked for."""
    for record in records:
        request = record.get("request") or {}
        body = request.get("body") or {}
        same = (request.get("method"), request.get("path")) == (call.method, call.path)
        if not same or not isinstance(body, dict) or record["response"]["status"] != 200:
            continue
        if bool(body.get("stream")) == bool((call.body or {}).get("stream")):
            return record["response"]
    return {"status": 404, "headers": {}, "body": {"detail": "Not Found"}}


def _recording(name: str) -> Any:
    return json.loads((CONTRACT / f"{name}.json").read_text("utf-8"))
