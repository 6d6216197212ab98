"""HTTP to the engine on 127.0.0.1; an oddity of it becomes a JobError on this way, once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp

from worker.engine_answer import parse_answer, text_of
from worker.errors import EngineBroken, InvalidJob, TooLarge
from worker.events import Event, EventDecoder
from worker.http_connection import Connection
from worker.http_pool import IDLE_SECONDS, Pool
from worker.output import MAX_OUTPUT_BYTES
from worker.slots import Stop

# https://docs.runpod.io/serverless/endpoints/operation-reference: a request has 20 MB at most
MAX_BODY_BYTES = 20_000_000
# An event takes many times the bytes of its text.
MAX_STREAM_BYTES = 250_000_000
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class EngineClient:
    """Asks the engine; made inside a running loop, closed with `close`.

    session: for what is neither JSON nor events (the classic's websockets, forms, the engine's
    start), which aiohttp does. A request is sent once, whatever becomes of it.
    """

    def __init__(self, port: int, *, connect_timeout: float = 5.0) -> None:
        """Keep the address; reading has no limit of its own: a job's deadline cancels it."""
        self.base_url = f"http://127.0.0.1:{port}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        )
        self._pool = Pool(port, connect_timeout=connect_timeout)
        self._host = f"127.0.0.1:{port}"

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        await self.session.close()

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return the parsed JSON of a 2xx answer.

        Raises EngineDown, EngineBroken, EngineRefused, TooLarge, or InvalidJob for a body that
        can't be sent.
        """
        data = None if body is None else encode_body(body)
        connection = await self._pool.take()
        try:
            await connection.send(self._head(method, path, data), data or b"")
            text = text_of(await connection.whole(MAX_OUTPUT_BYTES))
        finally:
            self._pool.give_back(connection)
        return parse_answer(connection.answer.status, text)

    async def events(
        self, path: str, body: Mapping[str, Any], stop: Stop
    ) -> AsyncGenerator[Event, None]:
        """POST and yield server-sent events as they come; a requested stop ends them quietly.

        Closing the iterator closes the connection, which frees the engine's slot.
        """
        data = encode_body(body)
        connection = await self._pool.take()
        try:
            # llama.cpp's server says keep-alive on a stream and closes after it all the same, so
            # the next request would meet a connection that is just being closed. It gets a new one.
            await connection.send(self._head("POST", path, data, "Connection: close\r\n"), data)
            await _until_stream(connection)
            stop.on_request(connection.close)
            decoder = EventDecoder()
            size = 0
            while piece := await connection.read():
                size += len(piece)
                if size > MAX_STREAM_BYTES:
                    raise TooLarge(f"the answer is over {MAX_STREAM_BYTES} bytes; ask for less")
                for event in decoder.feed(piece):
                    yield event
                if not connection.answer.over:  # now, as it would delay the first event
                    self._pool.connect_ahead()
        except EngineBroken:
            if not stop.requested:  # after it, a broken answer is its effect
                raise
        finally:
            connection.close()

    def _head(self, method: str, path: str, body: bytes | None, more: str = "") -> bytes:
        """A request's head."""
        kind = ""
        if body is not None:
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{kind}{more}\r\n".encode()


async def _until_stream(connection: Connection) -> None:
    """Wait for the head of a stream; raises the error that is there in its place."""
    await connection.head()
    answer = connection.answer
    if answer.status != 200 or answer.kind != "text/event-stream":
        parse_answer(answer.status, text_of(await connection.whole(MAX_OUTPUT_BYTES)))
        raise EngineBroken("the engine did not stream its answer; try again")


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request body as UTF-8 JSON; raises InvalidJob or TooLarge."""
    try:
        data = _json(body).encode()
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise InvalidJob(
            "the payload is not valid JSON (NaN, half of a character, or nested without end)"
        ) from error
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge(f"the payload has {len(data)} bytes; at most {MAX_BODY_BYTES} can be sent")
    return data
