"""RunPod's worker side in a few hand-made lines, where the emulator itself would be the limit.

Hands out jobs, takes results and chunks, holds polls; nothing else, and nothing is checked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.wire import Exchange, serving

HOLD_SECONDS = 25.0


class FastPlatform:
    """The queue of one endpoint.

    first_take: when the first job-take came, on the monotonic clock; results: bodies of job-done.
    """

    def __init__(self) -> None:
        self.port = 0
        self.first_take: float | None = None
        self._took = asyncio.Event()
        self._queue: deque[bytes] = deque()
        self._waiting: deque[tuple[Exchange, int]] = deque()
        self._done: dict[str, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FastPlatform]:
        """Listen on a free port."""
        async with serving(self._answer) as self.port:
            yield self

    def submit(self, job_input: Mapping[str, Any], *, hand_over: bool = True) -> str:
        """Queue a job; its id. Without hand_over it waits until `hand_over` is called."""
        job_id = f"job-{next(self._numbers)}"
        self._queue.append(json.dumps({"id": job_id, "input": job_input}).encode())
        self._done[job_id] = asyncio.get_running_loop().create_future()
        if hand_over:
            self.hand_over()
        return job_id

    async def result(self, job_id: str, timeout: float = 60.0) -> Any:
        """The body of a job's result, when it has come."""
        return json.loads(await asyncio.wait_for(self._done[job_id], timeout))

    async def taken(self, timeout: float = 60.0) -> float:
        """Wait for the first job-take; when it came."""
        await asyncio.wait_for(self._took.wait(), timeout)
        if self.first_take is None:
            raise RuntimeError("nobody asked for a job")
        return self.first_take

    def hand_over(self) -> None:
        """Give the jobs that wait to the workers that wait."""
        while self._queue and self._waiting:
            exchange, count = self._waiting.popleft()
            if exchange.open:
                self._give(exchange, count)

    def _answer(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.target)
        operation = parts.path.split("/")[3]
        if operation.startswith("job-take"):
            self._take(exchange, parse_qs(parts.query).get("batch_size", ["0"])[0])
        elif operation == "job-stop":
            asyncio.get_running_loop().call_later(HOLD_SECONDS, _nothing, exchange)
        else:
            if operation == "job-done":
                done = self._done[parts.path.rpartition("/")[2]]
                if not done.done():
                    done.set_result(exchange.body)
            exchange.reply(b"{}")

    def _take(self, exchange: Exchange, batch: str) -> None:
        if self.first_take is None:
            self.first_take = time.monotonic()
            self._took.set()
        if self._queue:
            self._give(exchange, int(batch))
        else:
            self._waiting.append((exchange, int(batch)))

    def _give(self, exchange: Exchange, batch: int) -> None:
        """Answer with one job (batch 0), or with a list."""
        if not batch:
            exchange.reply(self._queue.popleft())
            return
        jobs = [self._queue.popleft() for _ in range(min(batch, len(self._queue)))]
        exchange.reply(b"[%s]" % b",".join(jobs))

    def variables(self) -> dict[str, str]:
        """What RunPod sets in a worker's environment."""
        base = f"http://127.0.0.1:{self.port}/v2/ep"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_PING_INTERVAL": "5000",
            "RUNPOD_POD_ID": "worker",
            "RUNPOD_AI_API_KEY": "key",
            "RUNPOD_LOG_LEVEL": "INFO",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }


def _nothing(exchange: Exchange) -> None:
    if exchange.open:
        exchange.reply(b"", status=204)
