"""A working substitute for an engine that lies, drags its feet or dies: raw HTTP on a free port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Call"], Awaitable[None]]


@dataclass
class Call:
    """One request that the engine got, and the wire to answer on."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: Any, *, status: int = 200, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        await self.raw(head.encode() + b"Connection: close\r\n\r\n" + data)

    async def begin_stream(self) -> None:
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")

    async def gone(self) -> None:
        """Wait until the caller hung up."""
        while await self.reader.read(65536):
            pass


@dataclass
class FakeEngine:
    """Answers by `script`; keeps what it was asked."""

    script: Script
    port: int = 0
    calls: list[Call] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            method, path, _ = line.split(" ")
            pairs = [item.split(": ", 1) for item in fields if item]
            headers = {name.lower(): value for name, value in pairs}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            body = json.loads(raw) if raw else None
            call = Call(method, path, headers, body, writer, reader)
            self.calls.append(call)
            await self.script(call)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def fake_engine(script: Script) -> AsyncIterator[FakeEngine]:
    """Run a fake engine; each connection is one request."""
    engine = FakeEngine(script)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await engine.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**26)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
