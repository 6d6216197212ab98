"""Asking the platform again and again: at once when it answers, ever more slowly when it fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiohttp

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
# The SDK's pause after 429 (rp_scale.py); it drops the Retry-After header.
TOO_MANY_PAUSE = 5.0
# An answer that arrived while the process was frozen is in the socket when time-outs fire.
THAW_SECONDS = 0.2


class Backoff:
    """Pauses that double from `first` to `longest` seconds, less a random part of up to half."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._next = first
        self._longest = longest

    def pause(self) -> float:
        """Seconds to wait now."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, protects nothing

    def reset(self) -> None:
        """Begin with the first pause again."""
        self._next = self._first


def reason(error: BaseException) -> str:
    """Say what went wrong, short and without URLs (they may hold keys)."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"HTTP {error.status}"
    return type(error).__name__


class LongPoll:
    """A long poll that is repeated.

    name: for the log; timeout: seconds that the platform may hold a request; floor: seconds that an
    answer without content takes at least, so that one that comes at once makes no hot loop.
    """

    def __init__(self, name: str, *, timeout: float, floor: float) -> None:
        self._name = name
        self._timeout = timeout
        self._floor = floor
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._fault = ""
        self._closed = False
        self._request: asyncio.Task[Any] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the platform may be answering right now."""
        return self._request is not None

    async def ask(self, request: Coroutine[Any, Any, list[T]]) -> list[T]:
        """Send one request; its answer, or [] after the pause that silence or a fault asks for."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._request = task = loop.create_task(request)
        try:
            await asyncio.wait({task}, timeout=self._timeout)
            if not task.done():
                await asyncio.wait({task}, timeout=THAW_SECONDS)
        finally:
            self._request = None
            task.cancel()
        if not task.done() or task.cancelled():
            return []
        error = task.exception()
        answer = task.result() if error is None else []
        if not answer and not self._closed:
            await asyncio.sleep(self._pause(error, loop.time() - started))
        elif error is None:
            self._note("")
        return answer

    async def close(self, window: float) -> None:
        """Give the request under way `window` more seconds, then end it; `ask` returns at once."""
        self._closed = True
        if self._request is not None:
            request = self._request
            await asyncio.wait({request}, timeout=window)
            request.cancel()

    def _pause(self, error: BaseException | None, elapsed: float) -> float:
        """Seconds until the next request after a fault or an answer without content."""
        if error is None:
            self._note("")
            return max(0.0, self._floor - elapsed)
        self._note(reason(error))
        if isinstance(error, aiohttp.ClientResponseError) and error.status == 429:
            return TOO_MANY_PAUSE
        return self._backoff.pause()

    def _note(self, fault: str) -> None:
        """Log a fault when it begins, changes or ends, not at each poll."""
        if not fault:
            self._backoff.reset()
        if fault != self._fault:
            self._fault = fault
            if fault:
                logger.warning("%s fails: %s; trying on", self._name, fault)
            else:
                logger.info("%s works again", self._name)
