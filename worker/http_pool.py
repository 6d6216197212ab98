"""The connections to the engine that wait for the next request, each for a short while."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from worker.deadline import deadline
from worker.errors import EngineDown
from worker.http_connection import Connection

# Below the 5 s after which llama.cpp's server and uvicorn close an idle connection.
IDLE_SECONDS = 2.0
# The engine keeps a thread or a task for each.
MAX_IDLE = 16


class Pool:
    """Connections to one port of 127.0.0.1; used within a running loop."""

    def __init__(
        self, port: int, *, connect_timeout: float, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        """Start without any; connect_timeout: seconds, as idle_seconds are."""
        self._port = port
        self._connect_timeout = connect_timeout
        self._idle_seconds = idle_seconds
        self._idle: list[tuple[Connection, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ahead: asyncio.Task[None] | None = None

    async def take(self) -> Connection:
        """A connection that nobody else uses, a new one if need be; raises EngineDown."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle:
            connection, since = self._idle.pop()
            if since > oldest and connection.silent:
                return connection
            connection.close()
        return await self._connect()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it when it is not fit for that."""
        if connection.reusable and len(self._idle) < MAX_IDLE:
            self._keep(connection)
        else:
            connection.close()

    def connect_ahead(self) -> None:
        """Have a connection ready for the next request while the engine works on this one."""
        if not self._idle and (self._ahead is None or self._ahead.done()):
            self._ahead = asyncio.ensure_future(self._connect_ahead())

    def close(self) -> None:
        """Close all that are idle."""
        if self._ahead is not None:
            self._ahead.cancel()
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._idle.pop()[0].close()

    async def _connect_ahead(self) -> None:
        with suppress(EngineDown):  # the next request finds out by itself
            self._keep(await self._connect())

    async def _connect(self) -> Connection:
        down = EngineDown("the engine does not answer; it may be restarting, try again")
        with deadline(self._connect_timeout, down):
            try:
                return await _connect(self._port)
            except OSError as error:
                raise down from error

    def _keep(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle.append((connection, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(self._idle_seconds, self._close_old)

    def _close_old(self) -> None:
        """Close those that have waited for too long, and look again when the next one will have."""
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0][1] <= loop.time() - self._idle_seconds:
            self._idle.pop(0)[0].close()
        self._timer = None
        if self._idle:
            self._timer = loop.call_at(self._idle[0][1] + self._idle_seconds, self._close_old)


async def _connect(port: int) -> Connection:
    """A new connection; raises OSError."""
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", port)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # On loopback a connection is there when this returns, although it says that it is not; the
        # second call sees that, and else waits.
        with suppress(BlockingIOError):
            sock.connect(address)
        await loop.sock_connect(sock, address)
        _, connection = await loop.create_connection(lambda: Connection(sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection
