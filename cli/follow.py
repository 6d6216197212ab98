"""Follows one job to its end: what it waits for, what it streams, its times."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cli.endpoint_api import EndpointApi
from gateway.job import IN_QUEUE, Job
from worker.errors import JobError, JobTimedOut

_LOOK_SECONDS = 2.0
_LONGEST_PAUSE = 0.5
_GOODBYE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that has no answer yet: its status, seconds since it was queued, /health if known."""

    status: str
    seconds: float
    health: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's last status answer, and its times in seconds; first: until the first chunk."""

    id: str
    answer: Mapping[str, Any]
    queued: float
    first: float | None
    total: float

    @property
    def status(self) -> str:
        """The job's last status."""
        return str(self.answer.get("status"))

    @property
    def error(self) -> str:
        """One sentence for a job that is not COMPLETED."""
        error = self.answer.get("error")
        return " ".join(error.split()) if isinstance(error, str) else f"the job is {self.status}"

    def tokens_per_second(self, tokens: int | None) -> float | None:
        """Of a stream: the tokens after the first text, over the seconds from it to the end.

        Of a plain answer: all tokens over the time that the worker had the job.
        """
        if tokens is None or tokens < 2:
            return None
        execution = self.answer.get("executionTime")
        if self.first is not None:
            tokens, seconds = tokens - 1, self.total - self.first
        else:
            seconds = execution / 1000 if isinstance(execution, (int, float)) else 0.0
        return tokens / seconds if seconds > 0 else None


OnWait = Callable[[Waiting], None]
OnChunk = Callable[[Any], None]


def ignore(_: Any) -> None:
    """Do nothing with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told what while a job is followed; wait: seconds that it may be IN_QUEUE."""

    wait: float = 300.0
    on_wait: OnWait = ignore
    on_chunk: OnChunk = ignore


async def run_job(
    api: EndpointApi, job: Mapping[str, Any], watch: Watch, *, streamed: bool
) -> Ended:
    """Queue a job and follow it; left before its end (Ctrl-C, too long a wait) it is cancelled.

    It is queued with /run: /runsync names a job only in its answer, so it could not be cancelled.
    Raises JobError, and JobTimedOut when no worker took it within `watch.wait`.
    """
    async with cancelled_when_left(api, await api.submit(job)) as job_id:
        return await follow(api, job_id, watch, streamed=streamed)


@asynccontextmanager
async def cancelled_when_left(api: EndpointApi, job_id: str) -> AsyncIterator[str]:
    """Cancel the job when the block is left by an exception."""
    try:
        yield job_id
    except BaseException:
        cancel = asyncio.create_task(api.cancel(job_id))
        with contextlib.suppress(JobError, asyncio.TimeoutError):
            await asyncio.wait_for(cancel, _GOODBYE_SECONDS)
        raise


async def follow(api: EndpointApi, job_id: str, watch: Watch, *, streamed: bool) -> Ended:
    """Follow a job that is queued already, without cancelling it. Raises JobError."""
    return await _Follower(api, job_id, watch, streamed=streamed).run()


class _Follower:
    """One job that is polled until its end."""

    def __init__(self, api: EndpointApi, job_id: str, watch: Watch, *, streamed: bool) -> None:
        self._api = api
        self._watch = watch
        self._streamed = streamed
        self._job = Job(id=job_id, clock=time.monotonic, wait=math.inf)
        self._first: float | None = None
        self._looked = -math.inf
        self._health: Mapping[str, Any] = {}

    async def run(self) -> Ended:
        job = self._job
        while (chunks := await self._poll()) or not job.over:
            if not chunks:
                await self._tell()
                await asyncio.sleep(min(job.pause(), _LONGEST_PAUSE))
        if self._streamed:
            job.answer = await self._api.status(job.id)
        delay = job.answer.get("delayTime")
        queued = delay / 1000 if isinstance(delay, (int, float)) else job.queued
        return Ended(job.id, job.answer, queued, self._first, self._waited)

    @property
    def _waited(self) -> float:
        return self._job.clock() - self._job.submitted

    async def _poll(self) -> list[Any]:
        """Ask once; hand on the chunks that have come."""
        job = self._job
        chunks: list[Any] = []
        if self._streamed:
            status, chunks = await self._api.stream(job.id)
        else:
            job.answer = await self._api.status(job.id)
            status = str(job.answer.get("status"))
        job.note(status)
        for chunk in chunks:
            self._first = self._waited if self._first is None else self._first
            self._watch.on_chunk(chunk)
        if chunks:
            job.heard()
        return chunks

    async def _tell(self) -> None:
        """Tell what the job waits for; raises JobTimedOut when it has been for too long."""
        job, waited, watch = self._job, self._waited, self._watch
        if job.status == IN_QUEUE:
            if waited >= watch.wait:
                raise JobTimedOut(
                    f"no worker took the job within {watch.wait:g} s; look at the endpoint's "
                    "workers with `health`, or wait longer with --wait"
                )
            if waited - self._looked >= _LOOK_SECONDS:
                self._looked, self._health = waited, await self._ask_health()
        watch.on_wait(Waiting(job.status, waited, self._health))

    async def _ask_health(self) -> dict[str, Any]:
        """What /health says; nothing when it can't be had: it is only for show."""
        try:
            return await self._api.health()
        except JobError:
            return {}
