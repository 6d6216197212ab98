"""A worker of an emulator that answers as this project's does, with canned texts, within the test.

A prompt is an order: "fail" is refused, "slow" goes on until it is cancelled, "hold" waits for
`FakeWorker.released`; every other one is answered with WORDS.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from emulator.server import Emulator
from tests.emulator.helpers import HandWorker, hand_worker

WORDS = ["Once", " upon", " a", " time", " there", " was", " a", " größer", " <b>fox</b>", "."]
TEXT = "".join(WORDS)
MODEL = "tiny"
_STEP = 0.05


@dataclass
class FakeWorker:
    """Runs `slots` jobs at once; pause: seconds between two words; inputs: every job's input."""

    hand: HandWorker
    slots: int = 2
    pause: float = 0.0
    inputs: list[Any] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while the worker does."""
        return [self._take() for _ in range(self.slots)] + [self._listen()]

    async def _take(self) -> None:
        while True:
            job = await self.hand.take()
            if job is not None:
                self.inputs.append(job["input"])
                task = asyncio.create_task(self._run(job["id"], job["input"]))
                self.running[job["id"]] = task
                await asyncio.wait({task})
                del self.running[job["id"]]

    async def _listen(self) -> None:
        """Stop what was cancelled."""
        while True:
            for job_id in await self.hand.stops() or []:
                self.stopped.append(job_id)
                if job_id in self.running:
                    self.running[job_id].cancel()

    async def _run(self, job_id: str, job_input: Mapping[str, Any]) -> None:
        if "openai_route" in job_input:
            path, body = job_input["openai_route"], job_input.get("openai_input") or {}
        else:
            path, body = job_input["api"]["endpoint"], job_input.get("payload") or {}
        prompt = body.get("prompt", body.get("user_input", ""))
        if prompt == "fail":
            error = "the prompt is missing; send one"
            await self.hand.done(job_id, error=error, output={"status": 400})
            return
        if prompt == "hold":
            await self.released.wait()
        answer, frame = _answers(path, body)
        if body.get("stream"):
            words = [" and so on"] * 1000 if prompt == "slow" else WORDS
            await self._stream(job_id, words, frame, _STEP if prompt == "slow" else self.pause)
        await self.hand.done(job_id, output=answer)

    async def _stream(
        self, job_id: str, words: list[str], frame: Callable[[str, str], Any], pause: float
    ) -> None:
        text = ""
        for word in words:
            text += word
            await self.hand.stream(job_id, frame(word, text))
            await asyncio.sleep(pause)


def _answers(path: str, body: Mapping[str, Any]) -> tuple[Any, Callable[[str, str], Any]]:
    """A job's output, and what makes a streamed chunk of a word and the text with it."""
    if path.startswith("/v1/"):
        return _openai(path)
    endpoint = path.removeprefix("/api/v1")
    if endpoint == "/chat":
        output = {"results": [{"history": _history(body, TEXT)}]}
        return output, lambda _, text: _frame(history=_history(body, text))
    outputs: dict[str, Any] = {
        "/model": {"result": MODEL},
        "/token-count": {"results": [{"tokens": len(WORDS)}]},
        "/stop-stream": {"results": "success"},
    }
    output = outputs.get(endpoint, {"results": [{"text": TEXT}]})
    return output, lambda word, _: _frame(text=word)


def _frame(**fields: Any) -> dict[str, Any]:
    return {"event": "text_stream", "message_num": 0, **fields}


def _history(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The history after a turn, which may be the last one again or its continuation."""
    pairs = [list(pair) for pair in (body.get("history") or {}).get("internal", [])]
    user, before = body.get("user_input", ""), ""
    if body.get("regenerate") or body.get("_continue"):
        user, last = pairs.pop()
        before = last if body.get("_continue") else ""
    pairs.append([user, before + text])
    return {"internal": pairs, "visible": pairs}


def _openai(path: str) -> tuple[Any, Callable[[str, str], Any]]:
    if path == "/v1/models":
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}, lambda *_: ""
    message = {"role": "assistant", "content": TEXT}
    usage = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 13}
    choice = {"index": 0, "message": message, "text": TEXT, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}

    def event(word: str, _: str) -> str:
        part = {"index": 0, "delta": {"content": word}, "text": word}
        return f"data: {json.dumps({'choices': [part]})}\n\n"

    return {**answer, "model": MODEL, "created": 0}, event


@asynccontextmanager
async def fake_worker(
    emulator: Emulator, *, slots: int = 2, pause: float = 0.0
) -> AsyncIterator[FakeWorker]:
    """Run one."""
    async with hand_worker(emulator, "fake-worker") as hand:
        worker = FakeWorker(hand, slots, pause)
        tasks = [asyncio.create_task(loop) for loop in worker.loops()]
        try:
            yield worker
        finally:
            tasks += worker.running.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
