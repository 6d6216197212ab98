"""Changes of the model: each has the engine to itself and, once it was begun, goes on to its end.

A load that is broken off in the middle would leave the worker without a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from worker.slots import Slots, Use

T = TypeVar("T")


class Changes:
    """Runs changes when nobody uses the engine."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, change: Callable[[], Awaitable[T]]) -> T:
        """Wait for one's turn, and do the change.

        Cancelled before its turn it never begins; cancelled later it goes on, and only its caller
        is gone. Raises what the change raises.
        """
        begun = False

        async def work() -> T:
            nonlocal begun
            async with self._slots.use(Use.CHANGE):
                begun = True
                return await change()

        task = asyncio.ensure_future(work())
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun:
                task.cancel()
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Forget a change; an error that nobody waits for any more is in the engine's log."""
        self._running.discard(task)
        if not task.cancelled():
            task.exception()
