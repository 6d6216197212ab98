"""A working substitute for RunPod's worker-side API, and a worker process to run against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

WORKER_ID = "w1"
PROJECT = Path(__file__).parents[1]


class FakePlatform:
    """Queues jobs, holds polls, and records all that a worker sends.

    hold: seconds that an empty poll is held. `takes` holds scripted answers that come before any
    job, `posts` scripted statuses for job-done, `chunk_posts` for job-stream; "drop" cuts the
    connection.
    """

    def __init__(self, *, hold: float = 20.0) -> None:
        self.hold = hold
        self.url = ""
        self.queue: deque[Any] = deque()
        self.stops: deque[str] = deque()
        self.takes: deque[web.Response] = deque()
        self.posts: deque[int | str] = deque()
        self.chunk_posts: deque[int | str] = deque()
        self.requests: list[tuple[float, web.BaseRequest]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.delivered_at: dict[str, float] = {}
        self.streamed: dict[str, bool] = {}
        self.chunks: dict[str, list[Any]] = {}
        self.pings: list[dict[str, str]] = []
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakePlatform]:
        """Listen on a free port of the loopback address."""
        app = web.Application(client_max_size=50_000_000)
        app.add_routes(
            [
                web.get("/v2/ep/job-take/{worker}", self._take),
                web.get("/v2/ep/job-take-batch/{worker}", self._take),
                web.get("/v2/ep/job-stop/{worker}", self._stop),
                web.get("/v2/ep/ping/{worker}", self._ping),
                web.post("/v2/ep/job-done/{worker}/{job}", self._done),
                web.post("/v2/ep/job-stream/{worker}/{job}", self._stream),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v2/ep"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def submit(self, *jobs: Any) -> None:
        """Queue jobs as they are."""
        self.queue.extend(jobs)
        await self._notify()

    async def stop(self, job_id: str) -> None:
        """Tell the worker to stop a job."""
        self.stops.append(job_id)
        await self._notify()

    async def until(self, true: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until it holds after something the worker did."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(true)

        await asyncio.wait_for(wait(), timeout)

    async def result(self, job_id: str, timeout: float = 10.0) -> dict[str, Any]:
        """The body of a job's result, once it is there."""
        await self.until(lambda: job_id in self.results, timeout)
        return self.results[job_id]

    def count(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in request.path for _, request in self.requests)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _seen(self, request: web.Request) -> None:
        self.requests.append((time.monotonic(), request))
        await self._notify()

    async def _poll(self, queue: deque[Any]) -> bool:
        try:
            await self.until(lambda: bool(queue), self.hold)
        except asyncio.TimeoutError:
            return False
        return True

    async def _take(self, request: web.Request) -> web.Response:
        await self._seen(request)
        if self.takes:
            return self.takes.popleft()
        if not await self._poll(self.queue):
            return web.Response(status=204)
        if "job-take-batch" not in request.path:
            return web.json_response(self.queue.popleft())
        size = min(int(request.query["batch_size"]), len(self.queue))
        return web.json_response([self.queue.popleft() for _ in range(size)])

    async def _stop(self, request: web.Request) -> web.Response:
        await self._seen(request)
        if not await self._poll(self.stops):
            return web.Response(status=204)
        stops, self.stops = list(self.stops), deque()
        return web.json_response({"jobsToStop": stops})

    async def _ping(self, request: web.Request) -> web.Response:
        self.pings.append(dict(request.query))
        await self._notify()
        return web.Response()

    async def _stream(self, request: web.Request) -> web.Response:
        body = await request.text()
        await self._seen(request)
        status = await _scripted(request, self.chunk_posts)
        if status < 300:
            self.chunks.setdefault(request.match_info["job"], []).append(json.loads(body)["output"])
        await self._notify()
        return web.Response(status=status)

    async def _done(self, request: web.Request) -> web.Response:
        body = await request.text()
        await self._seen(request)
        status = await _scripted(request, self.posts)
        if status < 300:
            job_id = request.match_info["job"]
            self.results[job_id] = json.loads(body)
            self.delivered_at[job_id] = time.monotonic()
            self.streamed[job_id] = request.query["isStream"] == "true"
        await self._notify()
        return web.Response(status=status)

    def variables(self) -> dict[str, str]:
        """What RunPod sets in a worker's environment."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": WORKER_ID,
            "RUNPOD_AI_API_KEY": "KEY",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }


async def _scripted(request: web.Request, statuses: deque[int | str]) -> int:
    """The next scripted status, or 200; "drop" cuts the connection, "silence" never answers."""
    status = statuses.popleft() if statuses else 200
    if isinstance(status, int):
        return status
    if status == "silence":
        await asyncio.Event().wait()
    if request.transport is not None:
        request.transport.abort()
    return 500


@asynccontextmanager
async def worker_process(
    platform: FakePlatform, **options: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `tests.loop_worker` in a process group of its own; options go to it as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.loop_worker",
        json.dumps(options),
        cwd=PROJECT,
        env={**os.environ, **platform.variables()},
        start_new_session=True,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
