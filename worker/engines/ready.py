"""Waiting for an engine over HTTP: until it answers, until it is ready, until it is idle.

A child that ended is noticed at once, before any answer is believed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from worker.errors import EngineStartFailed
from worker.process import EngineProcess

POLL_SECONDS = 0.015
PROBE_SECONDS = 5.0
_IDLE_POLL_SECONDS = 0.05

Answer = TypeVar("Answer")
Explain = Callable[[EngineProcess], str]
_NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError)


class Startup:
    """One child on its way to ready, with one deadline for all its steps.

    timeout: seconds from now. explain: the sentence for a child that ended.
    poll, probe: seconds between two looks, and for one of them.
    """

    def __init__(
        self,
        process: EngineProcess,
        session: aiohttp.ClientSession,
        *,
        timeout: float,
        explain: Explain,
        poll: float = POLL_SECONDS,
        probe: float = PROBE_SECONDS,
    ) -> None:
        self._process = process
        self._session = session
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._explain = explain
        self._poll = poll
        self._probe = probe

    async def until_status(self, url: str, wanted: Callable[[int], bool]) -> None:
        """GET until the status is a wanted one; raises EngineStartFailed."""
        while not wanted(await self._status(url)):
            await self._pause()

    async def json(self, method: str, url: str, body: Any = None) -> Any:
        """Send one request, once, and return the answer's JSON; raises EngineStartFailed."""
        timeout = aiohttp.ClientTimeout(total=self._left())
        return await self._or_exit(self._exchange(method, url, body, timeout))

    async def _exchange(
        self, method: str, url: str, body: Any, timeout: aiohttp.ClientTimeout
    ) -> Any:
        """Do the exchange itself; no answer in time is the deadline's fault."""
        try:
            async with self._session.request(method, url, json=body, timeout=timeout) as response:
                answer = await response.json()
        except asyncio.TimeoutError:
            raise self._too_late() from None
        except _NO_ANSWER as error:
            raise EngineStartFailed("the engine broke off its first answer") from error
        if response.status != 200:
            raise EngineStartFailed(
                f"the engine refused its first request with status {response.status}"
            )
        return answer

    async def _status(self, url: str) -> int:
        """Status of one GET, 0 without an answer."""
        timeout = aiohttp.ClientTimeout(total=min(self._probe, self._left()))
        try:
            async with self._session.get(url, timeout=timeout) as response:
                return response.status
        except _NO_ANSWER:
            return 0

    async def _pause(self) -> None:
        """Wait before the next poll, not longer than the child lives."""
        await self._or_exit(asyncio.sleep(self._poll))

    async def _or_exit(self, step: Awaitable[Answer]) -> Answer:
        """Do one step; a child that ends meanwhile ends it, with the cause as the error."""
        work = asyncio.ensure_future(step)
        exited = asyncio.ensure_future(self._process.wait_exit())
        try:
            await asyncio.wait({work, exited}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                raise EngineStartFailed(self._explain(self._process))
            return await work
        finally:
            for task in (work, exited):
                task.cancel()
            await asyncio.gather(work, exited, return_exceptions=True)

    def _left(self) -> float:
        """Seconds until the deadline; EngineStartFailed when it has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._too_late()
        return left

    def _too_late(self) -> EngineStartFailed:
        """Make the error for a deadline that has passed."""
        return EngineStartFailed(f"the engine was not ready within {self._timeout:g} seconds")


async def until_idle(session: aiohttp.ClientSession, url: str, grace: float) -> bool:
    """Poll llama.cpp's `/slots` until none is processing; False when `grace` seconds are over.

    An engine that does not answer has nothing left to wait for.
    """
    deadline = time.monotonic() + grace
    while (left := deadline - time.monotonic()) > 0:
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=left)) as response:
                slots = await response.json()
        except _NO_ANSWER:
            break
        if response.status != 200 or not any(slot["is_processing"] for slot in slots):
            return True
        await asyncio.sleep(_IDLE_POLL_SECONDS)
    return False
