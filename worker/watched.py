"""Tells a job whose engine died under it what the engine died of."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from worker.answerer import Answerer
from worker.errors import EngineBroken, EngineDown
from worker.job import Request
from worker.progress import Progress
from worker.stream import Sink

# A broken connection is seen before the process is reaped.
_REAP_SECONDS = 0.3


class Mortal(Protocol):
    """Something that may die."""

    async def wait_died(self) -> str:
        """Return only when it has died by itself, with the cause in words."""
        ...


class Watched:
    """Answers as `inner` does; a broken connection to a dead engine names the cause of death."""

    def __init__(self, inner: Answerer, engine: Mortal) -> None:
        """Watch the engine that `inner` speaks to."""
        self._inner = inner
        self._engine = engine

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The output of one request. Raises JobError."""
        try:
            return await self._inner.answer(request, sink, progress)
        except (EngineBroken, EngineDown) as error:
            try:
                cause = await asyncio.wait_for(self._engine.wait_died(), _REAP_SECONDS)
            except asyncio.TimeoutError:
                raise error from None
            raise EngineDown(f"{cause}; send the job again", detail=error.detail) from error
