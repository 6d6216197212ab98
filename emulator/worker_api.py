"""The worker side: job-take, job-take-batch, job-stop, job-stream, job-done, ping.

What workers send and expect: runpod-python 1.12.0 (commit 07fc6e2), serverless/modules/rp_job.py,
rp_http.py and rp_ping.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emulator.endpoint import Endpoint, Taker
from emulator.errors import Refused
from emulator.jobs import Job
from emulator.roster import Worker
from emulator.submission import parse_object
from emulator.waiting import until
from emulator.web import Gate, deliver, json_answer, read_body

log = logging.getLogger(__name__)

Render = Callable[[list[Job]], bytes]

_BATCH = 1_000
# a worker that is on its way out may still ask; its polls are short, but no hot loop
_LEAVING_POLL = 0.5


class WorkerApi:
    """Handlers for what a worker sends."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Serve this endpoint's workers."""
        self._endpoint = endpoint
        self._limits = endpoint.limits

    def routes(self, gate: Gate, prefix: str) -> list[web.RouteDef]:
        """List all routes under the prefix."""

        def get(path: str, operation: str, handler: str) -> web.RouteDef:
            guarded = gate.worker(operation, getattr(self, handler))
            return web.get(f"{prefix}/{operation}/{path}", guarded, allow_head=False)

        def post(path: str, operation: str, handler: str) -> web.RouteDef:
            guarded = gate.worker(operation, getattr(self, handler))
            return web.post(f"{prefix}/{operation}/{path}", guarded)

        return [
            get("{worker}", "job-take", "take"),
            get("{worker}", "job-take-batch", "take_batch"),
            get("{worker}", "job-stop", "stop"),
            get("{worker}", "ping", "ping"),
            post("{worker}/{job}", "job-stream", "stream"),
            post("{worker}/{job}", "job-done", "done"),
        ]

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer one job, or 204 after a long poll."""
        return await self._take(request, 1, lambda jobs: jobs[0].payload)

    async def take_batch(self, request: web.Request) -> web.StreamResponse:
        """Answer a list of up to `batch_size` jobs, or 204 after a long poll."""
        text = request.query.get("batch_size", "1")
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _BATCH):
            raise Refused(400, f"batch_size must be from 1 to {_BATCH}")
        return await self._take(
            request, int(text), lambda jobs: b"[%s]" % b",".join(job.payload for job in jobs)
        )

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """Answer the ids of jobs to stop, or 204 after a long poll."""
        worker = self._worker(request)
        with self._endpoint.roster.polling(worker):
            was_leaving = worker.leaving
            seconds = _LEAVING_POLL if was_leaving else self._limits.poll
            await until(
                worker, lambda: bool(worker.stops) or worker.leaving is not was_leaving, seconds
            )
        if not worker.stops:
            return web.Response(status=204)
        stops = list(worker.stops)
        worker.stops.clear()
        return await deliver(
            request, json_answer({"jobsToStop": stops}), lambda: worker.stops.extend(stops)
        )

    async def ping(self, request: web.Request) -> web.Response:
        """Note that a worker is alive, and whether it is well."""
        worker = self._worker(request)
        worker.unhealthy = request.query.get("status") == "unhealthy"
        if worker.unhealthy:
            reason = request.query.get("reason", "")[:200]
            log.warning("worker %s says that it is unhealthy: %s", worker.id, reason)
        return web.Response()

    async def stream(self, request: web.Request) -> web.Response:
        """Take one streamed output."""
        raw = await read_body(request, self._limits.result_bytes)
        body = parse_object(raw)
        job = self._running(request)
        if job is not None:
            outputs = split_chunk(body.get("output"), len(raw), self._limits.chunk_bytes)
            self._endpoint.chunk(job, outputs, len(raw))
        return web.Response()

    async def done(self, request: web.Request) -> web.Response:
        """Take a job's result or progress; what comes for a job that is not its any more is not."""
        raw = await read_body(request, self._limits.result_bytes)
        body = parse_object(raw)
        job = self._running(request)
        if job is not None:
            if body.get("status") == "IN_PROGRESS":
                self._endpoint.progress(job, body.get("output"), len(raw))
            else:
                self._endpoint.finish(job, read_result(body, job.id), len(raw))
        if body.get("stopPod") is True:
            self._endpoint.refresh(request.match_info["worker"])
        return web.Response()

    async def _take(self, request: web.Request, limit: int, render: Render) -> web.StreamResponse:
        """Give jobs that wait, or the next that come."""
        worker = self._worker(request)
        jobs = self._endpoint.take(worker, limit)
        if not jobs:
            with self._endpoint.roster.polling(worker):
                jobs = await self._wait(worker, limit)
        if not jobs:
            return web.Response(status=204)
        response = web.Response(body=render(jobs), content_type="application/json")
        return await deliver(request, response, lambda: self._endpoint.give_back(jobs, worker))

    async def _wait(self, worker: Worker, limit: int) -> list[Job]:
        """Wait in line; jobs that come in the very moment of hanging up go back to the queue."""
        if worker.leaving or self._endpoint.draining:
            await asyncio.sleep(_LEAVING_POLL)
            return []
        loop = asyncio.get_running_loop()
        given: asyncio.Future[list[Job]] = loop.create_future()
        taker = Taker(worker, limit, given.set_result)

        def give_up() -> None:
            if not given.done():
                self._endpoint.leave(taker)
                given.set_result([])

        def look() -> None:
            if worker.leaving:
                give_up()

        timer = loop.call_later(self._limits.poll, give_up)
        worker.watchers.append(look)
        self._endpoint.wait(taker)
        try:
            return await asyncio.shield(given)
        except asyncio.CancelledError:
            self._endpoint.leave(taker)
            if given.done():
                self._endpoint.give_back(given.result(), worker)
            raise
        finally:
            timer.cancel()
            worker.watchers.remove(look)

    def _worker(self, request: web.Request) -> Worker:
        return self._endpoint.roster.seen(request.match_info["worker"])

    def _running(self, request: web.Request) -> Job | None:
        return self._endpoint.running_job(request.match_info["job"], request.match_info["worker"])


def split_chunk(output: Any, size: int, limit: int) -> list[Any]:
    """Split a streamed text that is over the limit; Refused (400) for anything else that is.

    size: the length of the POST's body in bytes; limit: bytes of one chunk.
    """
    if size <= limit:
        return [output]
    if not isinstance(output, str):
        raise Refused(400, f"a streamed chunk is over the limit of {limit} bytes")
    # a character takes 12 bytes at most: two escaped halves of a surrogate pair
    step = max(1, limit // 12)
    return [output[start : start + step] for start in range(0, len(output), step)]


def read_result(body: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Read "output" and "error" of a final job-done.

    Only a string makes a job FAILED; another kind of `error` is lost and the job is COMPLETED, as
    on the platform (https://github.com/runpod/runpod-python/issues/299).
    """
    result = {"output": body["output"]} if "output" in body else {}
    error = body.get("error")
    if isinstance(error, str) and error:
        result["error"] = error
    elif error:
        log.warning(
            "job %s is COMPLETED although its worker sent an error: it is %s and must be a string",
            job_id,
            json.dumps(type(error).__name__),
        )
    return result
