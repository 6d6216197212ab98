"""/v1/*: OpenAI's API and what text-generation-webui adds to it, with server-sent events."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from aiohttp import web

from gateway.job_input import openai_input
from gateway.jobs import Jobs
from gateway.web import json_answer, openai_error, patience, read_object
from worker.assemble import DONE
from worker.errors import JobError
from worker.events import Event

_END = Event("", DONE).encode()


class OpenAiApi:
    """Handlers of /v1/*."""

    def __init__(self, jobs: Jobs) -> None:
        """Answer by jobs."""
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """All routes."""
        path = "/v1/{route:.+}"
        return [web.get(path, self.answer, allow_head=False), web.post(path, self.answer)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with the job's output, or with its events as they come."""
        body = await read_object(request) if request.method == "POST" else {}
        job_input = openai_input(request.method, request.path, body)
        if body.get("stream") is True:
            return await self._stream(request, job_input)
        return json_answer(await self._jobs.result(job_input))

    async def _stream(self, request: web.Request, job_input: dict[str, Any]) -> web.StreamResponse:
        """Pass on events; a failure before the first one is a status, later it is an event."""
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        async with aclosing(self._jobs.chunks(job_input, _is_last)) as chunks:
            try:
                async for chunk in chunks:
                    if not response.prepared:
                        await response.prepare(request)
                    with patience():
                        await response.write(_text(chunk).encode("utf-8", "replace"))
            except JobError as error:
                if not response.prepared:
                    raise
                await response.write(_text(openai_error(error)).encode())
        await response.write_eof()
        return response


def _is_last(chunk: Any) -> bool:
    return isinstance(chunk, str) and chunk.endswith(_END)


def _text(chunk: Any) -> str:
    """Text is whole server-sent events already; any other JSON becomes one."""
    return chunk if isinstance(chunk, str) else Event("", json.dumps(chunk)).encode()
