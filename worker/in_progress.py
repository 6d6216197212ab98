"""The jobs of a worker between take and delivery, and whether there is room for another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


class Tracker(Protocol):
    """Who else wants to know which jobs are in progress."""

    def begin(self, job_id: str) -> None:
        """Count a job as in progress."""
        ...

    def end(self, job_id: str) -> None:
        """Count it no more."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One job in progress.

    runs: it holds a place; ending: the worker ends it, so its cancellation is answered with FAILED;
    undelivered: bytes of its result.
    """

    id: str
    task: asyncio.Task[None] = field(init=False)
    runs: bool = True
    ending: bool = False
    undelivered: int = 0


class InProgress:
    """Jobs by id.

    places: jobs that run at once; undelivered_bytes: of results, above it there is no room.
    """

    def __init__(self, tracker: Tracker, *, places: int, undelivered_bytes: int) -> None:
        """Start without jobs."""
        self._tracker = tracker
        self._places = places
        self._undelivered_bytes = undelivered_bytes
        # results are small as a rule; each still is a connection and an id in every ping
        self._undelivered_jobs = 2 * places + 16
        self._jobs: dict[str, Job] = {}
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs.values()))

    def get(self, job_id: str) -> Job | None:
        """Find the job with this id; None if it is not in progress."""
        return self._jobs.get(job_id)

    def add(self, job_id: str) -> Job:
        """Give a new job a place."""
        job = self._jobs[job_id] = Job(job_id)
        self._tracker.begin(job_id)
        return job

    def leave_place(self, job: Job, undelivered: int) -> None:
        """Free the place of a job whose work is over; its result has yet to be delivered."""
        job.runs = False
        job.undelivered = undelivered
        self._changed.set()

    def remove(self, job: Job) -> None:
        """Forget a job that is over: delivered, given up or stopped."""
        del self._jobs[job.id]
        self._tracker.end(job.id)
        self._changed.set()

    async def change(self) -> None:
        """Wait until there may be more room than now."""
        self._changed.clear()
        await self._changed.wait()

    def room(self) -> int:
        """Count the free places; 0 while too many results wait to be delivered."""
        running = sum(job.runs for job in self._jobs.values())
        waiting = sum(job.undelivered for job in self._jobs.values())
        crowded = len(self._jobs) - running >= self._undelivered_jobs
        if crowded or waiting >= self._undelivered_bytes:
            return 0
        return max(0, self._places - running)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """All jobs' tasks."""
        return {job.task for job in self._jobs.values()}
