"""One HTTP session to the engine on 127.0.0.1; an oddity of HTTP becomes a JobError here, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from worker.errors import EngineBroken, EngineDown, EngineRefused, InvalidJob, TooLarge
from worker.events import Event, EventDecoder
from worker.output import MAX_OUTPUT_BYTES
from worker.plain import plain, redacted
from worker.slots import Stop

# https://docs.runpod.io/serverless/endpoints/operation-reference: a request has 20 MB at most
MAX_BODY_BYTES = 20_000_000
# An event takes many times the bytes of its text.
MAX_STREAM_BYTES = 250_000_000
_BUSY_STATUSES = (502, 503, 504)
# Below the 5 s after which llama.cpp's server and uvicorn close an idle connection.
_KEEPALIVE_SECONDS = 2.0
_ENGINES = "the engine's"
_JSON = {"Content-Type": "application/json"}
# llama.cpp's server says keep-alive on a stream and closes after it all the same, so the next
# request would meet a connection that is just being closed.
_ONE_STREAM = {**_JSON, "Connection": "close"}


class EngineClient:
    """Speaks HTTP to the engine; made inside a running loop, closed with `close`."""

    def __init__(self, port: int, *, connect_timeout: float = 5.0) -> None:
        """Keep the address; reading has no limit of its own: a job's deadline cancels it."""
        self.base_url = f"http://127.0.0.1:{port}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return the parsed JSON of a 2xx answer.

        Raises EngineDown, EngineBroken, EngineRefused, TooLarge, or InvalidJob for a body that
        can't be sent.
        """
        data = None if body is None else encode_body(body)
        with _mapped_errors():
            headers = {} if data is None else _JSON
            async with self._request(method, path, data, headers) as response:
                raw = await read_bounded(response, MAX_OUTPUT_BYTES, _ENGINES)
        return _parse(response, raw)

    async def events(
        self, path: str, body: Mapping[str, Any], stop: Stop
    ) -> AsyncGenerator[Event, None]:
        """POST and yield server-sent events as they come; a requested stop ends them quietly.

        Closing the iterator closes the connection, which frees the engine's slot.
        """
        data = encode_body(body)
        with _mapped_errors(stop):
            async with self._request("POST", path, data, _ONE_STREAM) as response:
                if response.status != 200 or response.content_type != "text/event-stream":
                    _parse(response, await read_bounded(response, MAX_OUTPUT_BYTES, _ENGINES))
                    raise EngineBroken("the engine did not stream its answer; try again")
                stop.on_request(response.close)
                decoder = EventDecoder()
                size = 0
                async for piece in response.content.iter_any():
                    size += len(piece)
                    if size > MAX_STREAM_BYTES:
                        raise TooLarge(f"the answer is over {MAX_STREAM_BYTES} bytes; ask for less")
                    for event in decoder.feed(piece):
                        yield event

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange, never redirected; the connection is closed when it is left early."""
        async with self.session.request(
            method, self.base_url + path, data=data, headers=headers, allow_redirects=False
        ) as response:
            try:
                yield response
            finally:
                if not response.content.at_eof():
                    response.close()


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request body as UTF-8 JSON; raises InvalidJob or TooLarge."""
    try:
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise InvalidJob(
            "the payload is not valid JSON (NaN, half of a character, or nested without end)"
        ) from error
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge(f"the payload has {len(data)} bytes; at most {MAX_BODY_BYTES} can be sent")
    return data


async def read_bounded(response: aiohttp.ClientResponse, limit: int, whose: str) -> bytes:
    """The whole body; raises TooLarge over `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        parts.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLarge(f"{whose} answer is over {limit} bytes; ask for less")
    return b"".join(parts)


def _parse(response: aiohttp.ClientResponse, raw: bytes) -> Any:
    """The JSON of an answer, or the error that it is."""
    status = response.status
    try:
        answer = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        answer = None
    if status >= 400:
        raise _refused(status, answer)
    if status >= 300:
        raise EngineBroken("the engine tried to redirect the request; nothing was followed")
    if isinstance(answer, dict) and answer.get("error"):
        raise _refused(500, answer)
    if answer is None and raw.strip() != b"null":
        kind = "an empty answer" if not raw.strip() else "something that is not JSON"
        raise EngineBroken(f"the engine sent {kind}; try again, or see the worker's log")
    return answer


def _refused(status: int, answer: Any) -> EngineRefused | EngineDown:
    """The engine's own error, in one sentence, with its object as the detail."""
    message = _message(answer)
    if status in _BUSY_STATUSES:
        return EngineDown(f"the engine is not ready ({plain(message) or status}); try again")
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        message = (
            f"the prompt has {error.get('n_prompt_tokens')} tokens and the context holds "
            f"{error.get('n_ctx')}; shorten the prompt"
        )
    sentence = (
        f"the engine refused the request: {plain(message)}"
        if message
        else (f"the engine answered with status {status} and no reason; check endpoint and payload")
    )
    return EngineRefused(sentence, status=status, detail=redacted(answer))


def _message(answer: Any) -> str:
    """The sentence in an engine's error object, "" when there is none."""
    if not isinstance(answer, dict):
        return ""
    error = answer.get("error", answer.get("detail", answer.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    if isinstance(error, list):
        error = "; ".join(_validation(item) for item in error)
    return error if isinstance(error, str) else ""


def _validation(item: Any) -> str:
    """One entry of a 422's detail list: where and what."""
    if not isinstance(item, dict):
        return ""
    place = item.get("loc")
    parts = place if isinstance(place, list) else []
    where = ".".join(str(part) for part in parts if part != "body")
    return f"{where}: {item.get('msg', 'is wrong')}"


@contextmanager
def _mapped_errors(stop: Stop | None = None) -> Iterator[None]:
    """Translate the HTTP library's errors; after a requested stop they are its effect."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise EngineDown("the engine does not answer; it may be restarting, try again") from error
    except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError, ValueError) as error:
        if stop is not None and stop.requested:
            return
        raise EngineBroken("the engine broke off its answer; try again") from error
