"""Parts that the gateway's tests share: a worker, an emulator before it, a gateway before that."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from emulator.faults import Faults
from emulator.jobs import Job
from emulator.limits import Limits
from emulator.server import Emulator, running_emulator
from gateway.server import Gateway, running_gateway
from gateway.settings import GatewaySettings
from tests.emulator.helpers import FAST, HandWorker, hand_worker, serving

KEY = "canary-key"
MODEL = "tiny"
WORDS = [" Paris", ".", "\n", "It is größer."]
TEXT = "".join(WORDS)
# A client polls often here, so that a test of a limit is done soon.
BRISK = replace(FAST, stream_wait=0.02)


@dataclass(frozen=True)
class Setup:
    """What runs while a test does; `worker` is driven by hand where no work was given."""

    emulator: Emulator
    gateway: Gateway
    worker: HandWorker
    session: aiohttp.ClientSession

    @property
    def jobs(self) -> list[Job]:
        """All jobs that the emulator has seen."""
        return list(self.emulator.jobs.values())

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """GET; status and JSON."""
        async with self.session.get(self.gateway.url + path, **options) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """POST JSON, or bytes as they are; status and JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.gateway.url + path
        async with self.session.post(url, data=io.BytesIO(data), **options) as response:
            return response.status, await response.json()


@asynccontextmanager
async def running(
    work: Callable[[HandWorker, dict[str, Any]], Any] | None = None,
    *,
    limits: Limits = FAST,
    api_key: str | None = None,
    faults: Faults | None = None,
    **settings: Any,
) -> AsyncIterator[Setup]:
    """Run an emulator, one worker behind it, a gateway before it and a client."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            running_emulator(limits=limits, api_key=api_key, faults=faults)
        )
        worker = await stack.enter_async_context(hand_worker(emulator))
        if work is not None:
            await stack.enter_async_context(serving(worker, work))
        options = {"url": emulator.base, "api_key": api_key, "port": 0, "stream_port": 0}
        gateway = await stack.enter_async_context(
            running_gateway(GatewaySettings(**{**options, **settings}))
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Setup(emulator, gateway, worker, session)


async def answer(worker: HandWorker, job: dict[str, Any]) -> None:
    """Do what this project's worker does, with canned texts."""
    job_input = job["input"]
    if "openai_route" in job_input:
        await _openai(worker, job["id"], job_input["openai_route"], job_input.get("openai_input"))
    else:
        api = job_input["api"]
        await _blocking(worker, job["id"], api["endpoint"], job_input.get("payload") or {})


async def fail(worker: HandWorker, job: dict[str, Any]) -> None:
    """Refuse a job as this project's worker does."""
    await worker.done(job["id"], error="the prompt is missing; send one", output={"status": 400})


async def _blocking(worker: HandWorker, job_id: str, endpoint: str, body: dict[str, Any]) -> None:
    if endpoint == "/model":
        await worker.done(job_id, output={"result": _model(body.get("action"))})
    elif endpoint == "/token-count":
        await worker.done(job_id, output={"results": [{"tokens": 5}]})
    elif endpoint == "/stop-stream":
        await worker.done(job_id, output={"results": "success"})
    elif endpoint == "/generate":
        if body.get("stream"):
            await _stream(worker, job_id, [{"text": word} for word in WORDS])
        await worker.done(job_id, output={"results": [{"text": TEXT}]})
    else:
        if body.get("stream"):
            parts = [{"history": history(body, TEXT[:length])} for length in (6, len(TEXT))]
            await _stream(worker, job_id, parts)
        await worker.done(job_id, output={"results": [{"history": history(body, TEXT)}]})


def _model(action: str | None) -> Any:
    """What /model answers for each action."""
    if action in ("info", "load"):
        return {
            "model_name": MODEL,
            "lora_names": [],
            "shared.args": {},
            "shared.settings": {"truncation_length": 2048, "instruction_template": None},
        }
    return ["None", MODEL] if action == "list" else MODEL


def history(body: dict[str, Any], reply: str) -> dict[str, Any]:
    """The history of a chat with one more turn."""
    turn = [body["user_input"], reply]
    return {name: [*body["history"][name], turn] for name in ("internal", "visible")}


async def _stream(worker: HandWorker, job_id: str, parts: list[dict[str, Any]]) -> None:
    frames = [{"event": "text_stream", "message_num": n, **part} for n, part in enumerate(parts)]
    for frame in [*frames, {"event": "stream_end", "message_num": len(frames)}]:
        await worker.stream(job_id, frame)


async def _openai(worker: HandWorker, job_id: str, route: str, body: Any) -> None:
    if route == "/v1/models":
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "me"}
        await worker.done(job_id, output={"object": "list", "data": [model]})
        return
    if body.get("stream"):
        for word in WORDS:
            await worker.stream(job_id, sse(completion(route, word, streamed=True)))
        await worker.stream(job_id, "data: [DONE]\n\n")
    await worker.done(job_id, output=completion(route, TEXT))


def completion(route: str, text: str, *, streamed: bool = False) -> dict[str, Any]:
    """A completion with one choice."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    kind = "text_completion"
    if "chat" in route:
        kind = "chat.completion.chunk" if streamed else "chat.completion"
        choice["delta" if streamed else "message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    fields = {"id": "c", "object": kind, "created": 1, "model": MODEL, "choices": [choice]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return fields if streamed else {**fields, "usage": usage}


def sse(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n"
