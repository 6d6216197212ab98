"""The client side: run, runsync, status, stream, cancel, retry, purge-queue, health.

https://docs.runpod.io/serverless/endpoints/operation-reference; /status-sync is not documented
there but used by the npm package runpod-sdk (runpod/js-sdk, src/index.ts, commit 5260aa0).
"""

from __future__ import annotations

from aiohttp import web

from emulator.endpoint import Endpoint
from emulator.errors import Refused
from emulator.jobs import Job
from emulator.submission import milliseconds, parse_submission
from emulator.waiting import until
from emulator.web import Gate, deliver, json_answer, read_body


class ClientApi:
    """Handlers for what a client sends to /v2/<endpoint id>/."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Serve this endpoint."""
        self._endpoint = endpoint
        self._limits = endpoint.limits

    def routes(self, gate: Gate, prefix: str) -> list[web.RouteDef]:
        """List all routes under the prefix."""

        def post(path: str, operation: str, handler: str) -> web.RouteDef:
            return web.post(prefix + path, gate.client(operation, getattr(self, handler)))

        def get(path: str, operation: str, handler: str) -> web.RouteDef:
            guarded = gate.client(operation, getattr(self, handler))
            return web.get(prefix + path, guarded, allow_head=False)

        return [
            post("/run", "run", "run"),
            post("/runsync", "runsync", "runsync"),
            get("/status/{job}", "status", "status"),
            get("/status-sync/{job}", "status", "status_sync"),
            get("/stream/{job}", "stream", "stream"),
            post("/cancel/{job}", "cancel", "cancel"),
            post("/retry/{job}", "retry", "retry"),
            post("/purge-queue", "purge-queue", "purge"),
            get("/health", "health", "health"),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Queue a job and answer its id."""
        raw = await read_body(request, self._limits.run_bytes)
        job = self._endpoint.submit(parse_submission(raw, self._limits), sync=False)
        return json_answer({"id": job.id, "status": job.status})

    async def runsync(self, request: web.Request) -> web.Response:
        """Queue a job and wait for it; a client that hangs up does not cancel it."""
        wait = self._wait(request)
        raw = await read_body(request, self._limits.runsync_bytes)
        job = self._endpoint.submit(parse_submission(raw, self._limits), sync=True)
        return await _wait_for(job, wait)

    async def status(self, request: web.Request) -> web.Response:
        """Tell how a job stands."""
        job = self._job(request)
        if "ttl" in request.query:
            self._endpoint.set_ttl(job, milliseconds(request.query["ttl"], "ttl", 0))
        return json_answer(job.answer())

    async def status_sync(self, request: web.Request) -> web.Response:
        """Tell how a job stands once it has ended, or when the wait is over."""
        return await _wait_for(self._job(request), self._wait(request))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer what was streamed since the last call; waits a moment when there is nothing."""
        job = self._job(request)
        await until(job, lambda: bool(job.chunks) or job.over, self._limits.stream_wait)
        chunks, size = self._endpoint.read_chunks(job)
        answer = {"status": job.status, "stream": [{"output": chunk} for chunk in chunks]}
        return await deliver(
            request,
            json_answer(answer),
            lambda: self._endpoint.unread_chunks(job, chunks, size),
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a job; one that has ended stays as it is."""
        job = self._job(request)
        self._endpoint.cancel(job)
        return json_answer({"id": job.id, "status": job.status})

    async def retry(self, request: web.Request) -> web.Response:
        """Queue a job again that failed or timed out."""
        job = self._job(request)
        self._endpoint.retry(job)
        return json_answer({"id": job.id, "status": job.status})

    async def purge(self, _: web.Request) -> web.Response:
        """Empty the queue."""
        return json_answer({"removed": self._endpoint.purge(), "status": "completed"})

    async def health(self, _: web.Request) -> web.Response:
        """Count jobs and workers."""
        return json_answer(self._endpoint.health())

    def _job(self, request: web.Request) -> Job:
        return self._endpoint.job(request.match_info["job"])

    def _wait(self, request: web.Request) -> float:
        """Seconds to wait, brought into the documented range."""
        low, high = self._limits.runsync_wait_range
        default = self._limits.runsync_wait
        return min(max(milliseconds(request.query.get("wait"), "wait", default), low), high)


async def _wait_for(job: Job, seconds: float) -> web.Response:
    """Answer a job's status when it is over or the time is."""
    await until(job, lambda: job.over, seconds)
    if job.gone and not job.final:
        raise Refused(404, "the job was deleted: its ttl was over")
    return json_answer(job.answer())
