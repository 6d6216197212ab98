"""Who may use the engine: as many generations as it has slots, and no model changed under them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum


class Use(Enum):
    """What somebody wants of the engine."""

    GENERATION = "generation"  # a slot
    MODEL = "model"  # the loaded model, but no slot: to count tokens
    CHANGE = "change"  # the engine to oneself: to load or unload a model


class Stop:
    """Lets /stop-stream end one running generation, which then returns what it has."""

    def __init__(self) -> None:
        """Start without a request."""
        self.requested = False
        self._close: Callable[[], None] | None = None

    def on_request(self, close: Callable[[], None]) -> None:
        """Call `close` when the stop is asked for, or now if it was."""
        self._close = close
        if self.requested:
            close()

    def request(self) -> None:
        """Ask for the stop."""
        self.requested = True
        if self._close is not None:
            self._close()


class Slots:
    """First come, first served.

    A change waits for all that use the model and holds back all that come after it; counting
    tokens never waits behind a generation.
    """

    def __init__(self, count: int) -> None:
        """Allow `count` generations at once."""
        self.count = count
        self._inside = dict.fromkeys(Use, 0)
        self._queue: list[tuple[Use, asyncio.Future[None]]] = []
        self._running: set[Stop] = set()

    @property
    def idle(self) -> bool:
        """Nobody uses the engine, and nobody waits for it."""
        return not self._queue and not any(self._inside.values())

    @property
    def changing(self) -> bool:
        """Somebody has the engine to oneself."""
        return bool(self._inside[Use.CHANGE])

    @property
    def busy(self) -> int:
        """How many generations run."""
        return self._inside[Use.GENERATION]

    def stop_all(self) -> None:
        """Ask every running generation to end."""
        for stop in tuple(self._running):
            stop.request()

    @asynccontextmanager
    async def generation(self) -> AsyncIterator[Stop]:
        """Hold one slot."""
        async with self.use(Use.GENERATION):
            stop = Stop()
            self._running.add(stop)
            try:
                yield stop
            finally:
                self._running.discard(stop)

    @asynccontextmanager
    async def use(self, use: Use, *, first: bool = False) -> AsyncIterator[None]:
        """Wait for one's turn and have it until the block ends; first: before all that wait."""
        if self._queue or not self._may_enter(use):
            await self._turn(use, 0 if first else len(self._queue))
        else:
            self._inside[use] += 1
        try:
            yield
        finally:
            self._inside[use] -= 1
            self._admit()

    async def _turn(self, use: Use, place: int) -> None:
        """Wait in the queue at this place until let in."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.insert(place, (use, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.remove((use, turn))
            else:
                self._inside[use] -= 1
            self._admit()
            raise

    def _admit(self) -> None:
        """Let in, in order, whoever can go in now."""
        slots_wanted = False
        for use, turn in tuple(self._queue):
            # A cancelled one takes itself out of the queue as soon as it runs.
            if turn.cancelled() or (use is Use.GENERATION and slots_wanted):
                continue
            if self._may_enter(use):
                self._queue.remove((use, turn))
                self._inside[use] += 1
                turn.set_result(None)
            elif use is Use.GENERATION and not self._inside[Use.CHANGE]:
                slots_wanted = True
            else:
                return

    def _may_enter(self, use: Use) -> bool:
        if self._inside[Use.CHANGE]:
            return False
        if use is Use.CHANGE:
            return not any(self._inside.values())
        return use is Use.MODEL or self._inside[Use.GENERATION] < self.count
