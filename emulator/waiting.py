"""Wait until something that has watchers (a job, a worker) is as one wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Watched(Protocol):
    """Something that calls its watchers whenever it changes."""

    watchers: list[Callable[[], None]]


async def until(watched: Watched, ready: Callable[[], bool], timeout: float) -> None:
    """Return as soon as `ready()` holds, or after `timeout` seconds."""
    if ready() or timeout <= 0:
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def look() -> None:
        if ready():
            finish()

    timer = loop.call_later(timeout, finish)
    watched.watchers.append(look)
    try:
        await done
    finally:
        timer.cancel()
        watched.watchers.remove(look)
