"""A connection to the engine: requests one after the other, and nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from worker.errors import EngineBroken, TooLarge
from worker.http_answer import Answer

# of an answer's body that wait for a reader; with more the engine is kept waiting
MAX_WAITING_BYTES = 262_144
_PART_BYTES = 262_144


class Connection(asyncio.Protocol):
    """One connection that was made; `send` begins an exchange, and `answer` is its answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.answer = Answer()
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._asked = False
        self._sent = True
        self._reading_paused = False
        self._writing_paused = False

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over, both ways, and the engine takes another request."""
        whole = self.answer.over and self._sent and not self._reading_paused
        return whole and self.answer.kept and not self._transport.is_closing()

    @property
    def silent(self) -> bool:
        """Whether nothing came unasked, an end neither, not even what no one has looked at yet."""
        if self._transport.is_closing():
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Hang up at once, whatever is not sent or read yet: that frees the engine's slot."""
        self._transport.abort()

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request, or as much of it as the engine takes before it has answered."""
        self.answer = Answer()
        self._asked, self._sent = True, False
        if len(body) <= _PART_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            parts = memoryview(body)
            for start in range(0, len(body), _PART_BYTES):
                self._transport.write(parts[start : start + _PART_BYTES])
                while self._writing_paused and not self._ended:
                    await self._more()
                if self._ended:
                    return
        self._sent = True

    async def head(self) -> None:
        """Wait for the answer's status and media type; raises EngineBroken."""
        while not self.answer.status:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the answer's body, b"" at its end; raises EngineBroken."""
        while True:
            body = self.answer.take()
            if self._reading_paused:
                self._reading_paused = False
                self._transport.resume_reading()
            if body or self.answer.over:
                return body
            await self._more()

    async def whole(self, limit: int) -> bytes:
        """The rest of the body; raises EngineBroken, or TooLarge over `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge(f"the engine's answer is over {limit} bytes; ask for less")
        return b"".join(parts)

    @property
    def _ended(self) -> bool:
        return self.answer.over or self.answer.broken

    def _more(self) -> asyncio.Future[None]:
        """Wait until something happens; raises EngineBroken when nothing can come any more."""
        if self.answer.broken:
            raise EngineBroken("the engine broke off its answer; try again")
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection can be used."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes of the answer; what nobody asked for ends the connection."""
        if not self._asked or self.answer.over:
            self.close()
            return
        self.answer.feed(data)
        if self.answer.size > MAX_WAITING_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The engine sends no more; asyncio closes the connection then."""
        self.answer.end()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by either side."""
        self.answer.broken = not self.answer.over
        self._wake()

    def pause_writing(self) -> None:
        """The engine reads more slowly than it is written to."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The engine has caught up."""
        self._writing_paused = False
        self._wake()
