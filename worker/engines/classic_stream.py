"""The classic's websockets: one message out, frames in until the one that ends them.

Frames: {"event": "text_stream", "message_num", "text" | "history"}, then {"event": "stream_end"}.
A closed websocket ends the generation with the next frame it would have sent. Facts from
text-generation-webui@snapshot-2023-11-05, extensions/api/streaming_api.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from worker.client import encode_body
from worker.errors import EngineBroken, EngineDown, TooLarge
from worker.output import MAX_OUTPUT_BYTES
from worker.slots import Stop

TEXT_PATH = "/api/v1/stream"
CHAT_PATH = "/api/v1/chat-stream"
# The websockets library that the classic listens with takes no more in one message.
MAX_MESSAGE_BYTES = 2**20
_CLOSE_SECONDS = 2.0
_BROKEN = "the engine broke off its answer; try again"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame before the end. size: about how many bytes it has."""

    data: Mapping[str, Any]
    size: int


async def frames(
    session: aiohttp.ClientSession, port: int, path: str, body: Mapping[str, Any], stop: Stop
) -> AsyncGenerator[Frame, None]:
    """Send a request and yield its frames; once a stop was requested they may just end.

    Closing the generator closes the websocket, which ends the generation. Raises EngineDown,
    EngineBroken for an answer without its end, TooLarge.
    """
    message = encode_body(body)
    if len(message) > MAX_MESSAGE_BYTES:
        raise TooLarge(
            f"the payload has {len(message)} bytes and the engine takes {MAX_MESSAGE_BYTES} for "
            "this; shorten it, or leave out stream"
        )
    async with _connected(session, f"ws://127.0.0.1:{port}{path}") as socket:
        try:
            await socket.send_str(message.decode())
            while (frame := _frame(await socket.receive(), socket, stop)) is not None:
                yield frame
        except (aiohttp.ClientError, ConnectionError) as error:
            if not stop.requested:
                raise EngineBroken(_BROKEN) from error


@asynccontextmanager
async def _connected(
    session: aiohttp.ClientSession, url: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse[Any]]:
    """A websocket that is closed at the end, whatever the engine does."""
    timeout = aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS)
    try:
        socket = await session.ws_connect(
            url, timeout=timeout, max_msg_size=MAX_OUTPUT_BYTES, compress=0
        )
    except aiohttp.ClientConnectorError as error:
        raise EngineDown("the engine does not answer; it may be restarting, try again") from error
    except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError) as error:
        raise EngineBroken(_BROKEN) from error
    try:
        yield socket
    finally:
        await socket.close()


def _frame(
    message: aiohttp.WSMessage, socket: aiohttp.ClientWebSocketResponse[Any], stop: Stop
) -> Frame | None:
    """The frame in a message, None for the end."""
    if message.type is aiohttp.WSMsgType.TEXT:
        return _parsed(message.data)
    if stop.requested:
        return None
    if socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        raise TooLarge(f"the engine's answer is over {MAX_OUTPUT_BYTES} bytes; ask for less")
    raise EngineBroken(_BROKEN)


def _parsed(text: str) -> Frame | None:
    """A frame of the stream, None for its end."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineBroken("the engine sent a frame that is not JSON; try again") from error
    event = data.get("event") if isinstance(data, dict) else None
    if event == "stream_end":
        return None
    if event != "text_stream":
        raise EngineBroken("the engine sent a frame that makes no sense; try again")
    return Frame(data, len(text))
