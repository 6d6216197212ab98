"""Events of one job on their way to the platform: put by the job, taken by whoever posts them.

No timer and no batch size: a taker gets everything that has come since it last took, merged into
as few chunks as the platform's limit allows. While a POST is under way events accumulate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

# https://docs.runpod.io/serverless/endpoints/operation-reference: a stream chunk has 1 MB at most
MAX_CHUNK_BYTES = 1_000_000
MAX_WAITING_BYTES = 8_000_000

Merge = Callable[[Sequence[Any]], list[Any]]


class Sink(Protocol):
    """Where a job's handler puts its stream events."""

    async def put(self, event: Any, size: int) -> None:
        """Hand over one event of about `size` bytes; waits while too much is waiting."""
        ...


class Discard:
    """The sink of a job that nobody streams."""

    async def put(self, event: Any, size: int) -> None:
        """Forget the event."""


class Channel:
    """A bounded buffer between one job and one poster.

    merge: turns all waiting events into chunks (each is JSON of at most MAX_CHUNK_BYTES).
    """

    def __init__(self, merge: Merge, *, limit: int = MAX_WAITING_BYTES) -> None:
        """Start empty and open."""
        self._merge = merge
        self._limit = limit
        self._events: list[Any] = []
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    async def put(self, event: Any, size: int) -> None:
        """Add an event; waits while more than the limit is waiting. After close it is dropped."""
        while self._bytes >= self._limit and not self._closed:
            self._emptied.clear()
            await self._emptied.wait()
        if not self._closed:
            self._events.append(event)
            self._bytes += size
            self._filled.set()

    async def take(self) -> list[Any]:
        """All chunks since the last call, at least one; [] when closed and empty."""
        chunks: list[Any] = []
        while not chunks:
            while not self._events and not self._closed:
                self._filled.clear()
                await self._filled.wait()
            if not self._events:
                break
            events, self._events, self._bytes = self._events, [], 0
            self._emptied.set()
            chunks = self._merge(events)
        return chunks

    def close(self) -> None:
        """No event comes any more; what waits can still be taken."""
        self._closed = True
        self._filled.set()
        self._emptied.set()
