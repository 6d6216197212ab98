"""The OpenAI route: /openai/v1/* becomes a job, its output the answer.

The job's input is {"openai_route": "/v1/...", "openai_input": body}; a GET has no `openai_input`
(runpod-workers/worker-vllm, src/handler.py, commit 7a92503). The platform documents the base URL
only, https://docs.runpod.io/serverless/vllm/openai-compatibility.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from emulator.endpoint import Endpoint
from emulator.errors import Refused
from emulator.jobs import CANCELLED, COMPLETED, IN_QUEUE, TIMED_OUT, Job
from emulator.submission import Submission, default_policy, parse_object
from emulator.waiting import until
from emulator.web import Gate, json_answer, read_body


class OpenAiApi:
    """Handlers for /v2/<endpoint id>/openai/*."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Serve this endpoint."""
        self._endpoint = endpoint
        self._limits = endpoint.limits

    def routes(self, gate: Gate, prefix: str) -> list[web.RouteDef]:
        """List all routes under the prefix."""
        path = prefix + "/openai/{route:.+}"
        return [
            web.get(path, gate.client("openai", self.get, openai_problem), allow_head=False),
            web.post(path, gate.client("openai", self.post, openai_problem)),
        ]

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer with the output of a job without `openai_input`."""
        return await self._plain(self._submit(request, None))

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Answer with a job's output or, for "stream": true, with its events as they come."""
        body = parse_object(await read_body(request, self._limits.runsync_bytes))
        job = self._submit(request, body)
        if body.get("stream") is True:
            return await self._stream(request, job)
        return await self._plain(job)

    def _submit(self, request: web.Request, body: dict[str, Any] | None) -> Job:
        job_input: dict[str, Any] = {"openai_route": "/" + request.match_info["route"]}
        if body is not None:
            job_input["openai_input"] = body
        submission = Submission({"input": job_input}, default_policy(self._limits))
        return self._endpoint.submit(submission, sync=True)

    async def _plain(self, job: Job) -> web.Response:
        """Wait for the job; a client that hangs up cancels it."""
        try:
            await until(job, lambda: job.over, job.policy.ttl)
        finally:
            self._endpoint.cancel(job)
        check(job)
        return json_answer(unwrap(job.result.get("output")))

    async def _stream(self, request: web.Request, job: Job) -> web.StreamResponse:
        """Pass on events as they come; a client that hangs up cancels the job."""
        try:
            await until(job, lambda: bool(job.chunks) or job.over, job.policy.ttl)
            if job.over and not job.chunks:
                check(job)
            response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            await self._pass_on(response, job)
            await response.write_eof()
            return response
        finally:
            self._endpoint.cancel(job)

    async def _pass_on(self, response: web.StreamResponse, job: Job) -> None:
        """Write chunks until the job is over; a failure ends the stream as an error event."""
        tries, written = job.tries, False

        def ended() -> bool:
            return job.over or job.status == IN_QUEUE or job.tries != tries

        while True:
            last = ended()
            chunks, _ = self._endpoint.read_chunks(job)
            for chunk in chunks:
                await asyncio.wait_for(response.write(event(chunk)), self._limits.write_timeout)
                written = True
            if last:
                break
            await until(job, lambda: bool(job.chunks) or ended(), job.policy.ttl)
        for rest in ending(job, written=written):
            await asyncio.wait_for(response.write(rest), self._limits.write_timeout)


def check(job: Job) -> None:
    """Raise Refused with the HTTP status that fits a job that is not COMPLETED.

    A FAILED job's worker says which one: an int from 400 to 599 in `output.status`.
    """
    if job.status == COMPLETED:
        return
    if job.status == CANCELLED:
        raise Refused(410, "the request was cancelled")
    if job.gone and not job.final:
        raise Refused(404, "the request was deleted: its ttl was over")
    output = job.result.get("output")
    status = output.get("status") if isinstance(output, dict) else None
    if job.status == TIMED_OUT:
        status = 504
    elif isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        status = 500
    raise Refused(status, job.result.get("error", "the job failed"))


def unwrap(output: Any) -> Any:
    """Take the one element of a generator worker's list."""
    return output[0] if isinstance(output, list) and len(output) == 1 else output


def event(chunk: Any) -> bytes:
    """Make bytes of a streamed output: text is server-sent events already, other JSON is not."""
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "replace")
    return b"data: %s\n\n" % json.dumps(chunk).encode()


def ending(job: Job, *, written: bool) -> list[bytes]:
    """Make what follows after the last chunk.

    Nothing for a job that is COMPLETED, unless its worker streamed nothing: then its output. An
    error event for any other, and for one that was queued again: its text would start anew.
    """
    if job.status == COMPLETED:
        output = job.result.get("output")
        items = output if isinstance(output, list) else [output]
        return [] if written else [event(item) for item in items]
    try:
        if job.over:
            check(job)
        refused = Refused(500, "the worker stopped in the middle of the answer; try again")
    except Refused as error:
        refused = error
    return [event(_error(refused))]


def openai_problem(refused: Refused) -> web.Response:
    """Answer in the form of OpenAI's errors."""
    return json_answer(_error(refused), refused.status)


def _error(refused: Refused) -> dict[str, Any]:
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    return {"error": {"message": refused.message, "type": kind, "code": refused.status}}
