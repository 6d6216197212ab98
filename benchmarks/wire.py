"""Hand-made HTTP/1.1 for the benchmarks: a server and a client that do as little as can be done.

Both speak to programs of this project alone: a request has a Content-Length or no body, an answer a
Content-Length or chunks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

_END = b"\r\n\r\n"


class Exchange:
    """One request, and the wire to answer it on."""

    __slots__ = ("_closes", "_transport", "body", "method", "target")

    def __init__(self, head: bytes, body: bytes, transport: asyncio.Transport) -> None:
        line, _, fields = head.partition(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        self.method = method.decode()
        self.target = target.decode()
        self.body = body
        self._transport = transport
        self._closes = b"connection: close" in fields.lower()

    @property
    def open(self) -> bool:
        """Whether the other side still listens."""
        return not self._transport.is_closing()

    def reply(self, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        """Send a whole answer."""
        self._transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s"
            % (status, kind.encode(), self._farewell, len(body), body)
        )
        self._end()

    def begin_stream(self) -> None:
        """Send the head of a stream of events."""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s"
            b"Transfer-Encoding: chunked\r\n\r\n" % self._farewell
        )

    def chunks(self, parts: list[bytes]) -> None:
        """Send parts of a stream, a chunk each, in one write."""
        self._transport.write(b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts))

    def end_stream(self) -> None:
        """Send the end of a stream."""
        self._transport.write(b"0\r\n\r\n")
        self._end()

    @property
    def _farewell(self) -> bytes:
        return b"Connection: close\r\n" if self._closes else b""

    def _end(self) -> None:
        if self._closes:
            self._transport.close()


OnRequest = Callable[[Exchange], None]


class _Connection(asyncio.Protocol):
    """Reads requests, one after the other, and hands them over."""

    def __init__(self, on_request: OnRequest, open_ones: set[asyncio.Transport]) -> None:
        self._on_request = on_request
        self._open_ones = open_ones
        self._head: bytes | None = None
        self._waiting = bytearray()
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._open_ones.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        if self._head is None:
            end = self._waiting.find(_END)
            if end < 0:
                return
            self._head = bytes(self._waiting[:end])
            del self._waiting[: end + 4]
            self._missing = _content_length(self._head)
        if len(self._waiting) >= self._missing:
            head, self._head = self._head, None
            body = bytes(self._waiting[: self._missing])
            del self._waiting[: self._missing]
            self._on_request(Exchange(head, body, self._transport))


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


@asynccontextmanager
async def serving(on_request: OnRequest) -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1, which is yielded."""
    loop = asyncio.get_running_loop()
    open_ones: set[asyncio.Transport] = set()
    server = await loop.create_server(
        lambda: _Connection(on_request, open_ones), "127.0.0.1", 0, backlog=512
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in open_ones:
            transport.abort()
        await asyncio.sleep(0)  # the turn in which they are closed


class Floor:
    """One keep-alive connection: what an exchange costs at least with asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Floor:
        """Connect to 127.0.0.1."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()

    async def call(self, path: str, body: bytes) -> Any:
        """POST; the answer's JSON."""
        head = await self._send(path, body)
        return json.loads(await self._reader.readexactly(_content_length(head)))

    async def stream(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """POST; the answer's chunks."""
        await self._send(path, body)
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)

    async def _send(self, path: str, body: bytes) -> bytes:
        """Send a request; the head of its answer."""
        self._writer.write(
            b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
        )
        return await self._reader.readuntil(_END)
