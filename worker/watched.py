"""Tells a job whose engine died under it what it died of, and keeps out what killed it twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any, Protocol

from worker.answerer import Answerer
from worker.errors import EngineBroken, EngineDown, InvalidJob
from worker.job import Request
from worker.plain import plain
from worker.progress import Progress
from worker.serving import first_of
from worker.stream import Sink

# A broken connection is seen before the process is reaped.
_REAP_SECONDS = 0.3
_MAX_DEATHS = 2
_TAIL_LINES = 10
_AGAIN = "send the job again"


class Mortal(Protocol):
    """Something that may die."""

    async def wait_died(self) -> str:
        """Return only when it has died by itself, with the cause in words."""
        ...

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        ...


class Recovery(Protocol):
    """Tells whether a dead engine comes back."""

    ready: asyncio.Event
    lost: asyncio.Event
    cause: str | None


class Watched:
    """Answers as `inner` does; a broken connection to a dead engine names the cause of death.

    A request that found nobody listening has not been worked on: it waits for the engine's return.
    """

    def __init__(self, inner: Answerer, engine: Mortal, recovery: Recovery) -> None:
        """Watch the engine that `inner` speaks to."""
        self._inner = inner
        self._engine = engine
        self._recovery = recovery
        self._deaths: Counter[str] = Counter()

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The output of one request. Raises JobError."""
        if self._deaths and self._deaths[_digest(request)] >= _MAX_DEATHS:
            raise InvalidJob(
                f"the engine died {_MAX_DEATHS} times while it worked on this very request; "
                "change the request"
            )
        try:
            return await self._first_answer(request, sink, progress)
        except EngineBroken as error:
            cause = await self._cause()
            if cause is None:
                raise
            if progress.has_slot:
                self._count_death(request)
                cause = f"{cause}, while it worked on this request"
            detail = {"log": [plain(line) for line in self._engine.tail()[-_TAIL_LINES:]]}
            if isinstance(error.detail, dict):
                detail.update(error.detail)
            raise EngineDown(f"{cause}; {_advice(cause)}", detail=detail) from error

    async def _first_answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The answer of an engine that listens, waiting for its return if it does not now."""
        while True:
            try:
                return await self._inner.answer(request, sink, progress)
            except EngineDown as error:
                cause = await self._cause()
                if cause is None and self._recovery.ready.is_set():
                    raise
                await first_of(self._recovery.ready.wait(), self._recovery.lost.wait())
                if self._recovery.lost.is_set():
                    gone = f"{cause or error}; {_AGAIN}"
                    raise EngineDown(gone, detail=error.detail) from error

    def _count_death(self, request: Request) -> None:
        digest = _digest(request)
        if digest:
            self._deaths[digest] += 1

    async def _cause(self) -> str | None:
        """What the engine died of, None when it lives."""
        try:
            died_of = await asyncio.wait_for(self._engine.wait_died(), _REAP_SECONDS)
        except asyncio.TimeoutError:
            return None
        return self._recovery.cause or died_of


def _advice(cause: str) -> str:
    """What the caller may do about it."""
    certain = "memory" in cause and "outside" not in cause
    return f"shorten the prompt or ask for fewer tokens, or {_AGAIN}" if certain else _AGAIN


def _digest(request: Request) -> str:
    """The same for the same request: 32 bytes as hex, "" for one too deep to be written down."""
    try:
        text = json.dumps([request.method, request.path, request.body], sort_keys=True)
    except RecursionError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
