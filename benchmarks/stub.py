"""The upstream: an engine that costs next to nothing, in a process of its own.

A request's body says what happens: `delay` seconds before the answer, `max_tokens` events of a
stream, `gap` seconds between two, `bytes` of text in a plain answer. An event's text is the time it
was sent at, in nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.wire import Exchange, serving

MODEL = "stub"
STREAMED = "/v1/chat/completions"
PLAIN = "/v1/embeddings"
_ROOT = Path(__file__).parent.parent
_CHUNK = '{"choices":[{"index":0,"delta":%s,"finish_reason":%s}],"object":"chat.completion.chunk",'
_CHUNK += '"id":"c1","created":1,"model":"stub"}'
_USAGE = '{"choices":[],"object":"chat.completion.chunk","id":"c1","created":1,"model":"stub",'
_USAGE += '"usage":{"completion_tokens":1,"prompt_tokens":1,"total_tokens":2}}'
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


class Stub:
    """Answers, and forgets."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request: at once where nothing is to be waited for."""
        asked = json.loads(exchange.body) if exchange.body else {}
        if exchange.method == "GET":
            exchange.reply(_MODELS)
        elif asked.get("delay") or asked.get("gap"):
            task = asyncio.create_task(_answer_slowly(exchange, asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif asked.get("stream"):
            exchange.begin_stream()
            exchange.chunks(_events(asked.get("max_tokens", 1)) + _tail())
            exchange.end_stream()
        else:
            exchange.reply(_plain(asked))


async def _answer_slowly(exchange: Exchange, asked: dict[str, float]) -> None:
    await asyncio.sleep(asked.get("delay", 0))
    if not asked.get("stream"):
        exchange.reply(_plain(asked))
        return
    exchange.begin_stream()
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(int(asked.get("max_tokens", 1))):
        if not exchange.open:
            return
        exchange.chunks(_events(1))
        due += asked.get("gap", 0)  # from the first on, so that late ones do not add up
        await asyncio.sleep(due - loop.time())
    exchange.chunks(_tail())
    exchange.end_stream()


def _events(count: int) -> list[bytes]:
    delta = json.dumps({"content": f"{time.monotonic_ns()} "})
    return [_event(_CHUNK % (delta, "null"))] * count


def _tail() -> list[bytes]:
    """The reason of the end, the usage, the end."""
    return [_event(_CHUNK % ("{}", '"stop"')), _event(_USAGE), _event("[DONE]")]


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _plain(asked: dict[str, float]) -> bytes:
    text = "x" * int(asked.get("bytes", 20))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "c1", "object": "chat.completion", "choices": [choice]}).encode()


@asynccontextmanager
async def running_stub() -> AsyncIterator[tuple[int, int]]:
    """Run the upstream in a process of its own: its port, its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.stub", cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        yield port, process.pid
    finally:
        process.kill()
        await process.communicate()


async def _main() -> None:
    async with serving(Stub()) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
