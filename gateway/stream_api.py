"""The blocking API's websockets: /api/v1/stream and /api/v1/chat-stream.

One message in, frames out, then the next message (text-generation-webui@e18a0460
extensions/api/streaming_api.py). Where that one closes with 1011 so does this, with the reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.job import check_numbering
from gateway.job_input import blocking_input
from gateway.jobs import Jobs
from gateway.runpod_api import MAX_RUN_BYTES
from gateway.web import parse_object, patience
from worker.errors import JobError
from worker.frames import END_FRAME, text_frame
from worker.job import BLOCKING_PREFIX
from worker.joblog import logger

_ENDPOINTS: Mapping[str, str] = {
    f"{BLOCKING_PREFIX}/stream": "/generate",
    f"{BLOCKING_PREFIX}/chat-stream": "/chat",
}
_MAX_WAITING = 8
# https://www.rfc-editor.org/rfc/rfc6455#section-5.5: 125 bytes, two of them the code
_MAX_REASON_BYTES = 123
_CLOSE_SECONDS = 2.0


class StreamApi:
    """Handlers of the websockets."""

    def __init__(self, jobs: Jobs) -> None:
        """Answer by jobs."""
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """All routes: any path, since one that does not exist is closed after the handshake."""
        return [web.get("/{path:.*}", self.serve, allow_head=False)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer messages until the client leaves; its job is then cancelled."""
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS, max_msg_size=MAX_RUN_BYTES, compress=False
        )
        if not socket.can_prepare(request):
            raise JobError("this port speaks websockets only; HTTP is on the other", status=426)
        await socket.prepare(request)
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None:
            await socket.close()
            return socket
        try:
            await self._serve(socket, endpoint)
        except JobError as error:
            logger.warning("%s: closed: %s", request.path, error)
            await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=_reason(str(error)))
        return socket

    async def _serve(self, socket: web.WebSocketResponse, endpoint: str) -> None:
        """Read and answer at the same time: reading is what sees pings and the client leave."""
        messages: asyncio.Queue[str | bytes] = asyncio.Queue(_MAX_WAITING)
        reading = asyncio.create_task(_read(socket, messages))
        answering = asyncio.create_task(self._answer_all(socket, messages, endpoint))
        both = {reading, answering}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            results = await asyncio.gather(*both, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise _as_job_error(result)

    async def _answer_all(
        self, socket: web.WebSocketResponse, messages: asyncio.Queue[str | bytes], endpoint: str
    ) -> None:
        while True:
            body = parse_object(await messages.get())
            await self._answer(socket, blocking_input("POST", endpoint, body, stream=True))

    async def _answer(self, socket: web.WebSocketResponse, job_input: dict[str, Any]) -> None:
        """Pass on one job's frames; before a text's first one goes an empty one, as ever."""
        opened = 0
        number = 0
        async with aclosing(self._jobs.chunks(job_input, _is_last)) as frames:
            async for frame in frames:
                check_numbering(number, frame)
                if number == 0 and "history" not in frame:
                    opened = 1
                    await _send(socket, text_frame(""), 0)
                await _send(socket, frame, number + opened)
                number += 1


async def _read(socket: web.WebSocketResponse, messages: asyncio.Queue[str | bytes]) -> None:
    """Take in messages until the client leaves."""
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            try:
                messages.put_nowait(message.data)
            except asyncio.QueueFull:
                raise JobError(
                    "too many requests wait on this connection; wait for stream_end", status=429
                ) from None


async def _send(socket: web.WebSocketResponse, frame: Mapping[str, Any], number: int) -> None:
    with patience():
        await socket.send_str(json.dumps({**frame, "message_num": number}))


def _is_last(chunk: Any) -> bool:
    return isinstance(chunk, dict) and chunk.get("event") == END_FRAME["event"]


def _as_job_error(error: Exception) -> JobError:
    if isinstance(error, JobError):
        return error
    logger.error("a websocket failed", exc_info=error)
    return JobError("the gateway failed on this request; see its log")


def _reason(text: str) -> bytes:
    """A close frame's reason: bounded, only whole characters."""
    return text.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
