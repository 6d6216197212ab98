"""All jobs in memory, within bounds: the oldest results go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from emulator.deadlines import Deadlines
from emulator.errors import Refused
from emulator.jobs import Job


class Store:
    """The jobs by id, their deadlines and the bytes that they keep."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty; max_bytes bounds payloads, results and unread chunks together."""
        self.jobs: dict[str, Job] = {}
        self.bytes = 0
        self._max_bytes = max_bytes
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._deadlines = Deadlines(self.jobs)

    def add(self, job: Job, deadline: float) -> None:
        """Keep a new job until its deadline; Refused (429) when memory is full."""
        self._make_room(job.size)
        if self.bytes + job.size > self._max_bytes:
            raise Refused(429, "the emulator's memory is full; try again when jobs have ended")
        self.bytes += job.size
        self.jobs[job.id] = job
        self._deadlines.set(job, deadline)

    def set_deadline(self, job: Job, when: float) -> None:
        """Replace the job's deadline."""
        self._deadlines.set(job, when)

    def due(self, now: float) -> Iterator[Job]:
        """Take the jobs whose deadline has come."""
        return self._deadlines.due(now)

    def set_result(self, job: Job, result: dict[str, object], size: int) -> None:
        """Replace the job's result or progress; `size` is its length as JSON."""
        self._resize(job, size - job.result_bytes)
        job.result, job.result_bytes = result, size

    def add_chunks(self, job: Job, chunks: list[object], size: int) -> None:
        """Keep streamed outputs until they are read; `size` is their length as JSON."""
        self._resize(job, size)
        job.chunks.extend(chunks)
        job.unread_bytes += size

    def take_chunks(self, job: Job) -> tuple[list[object], int]:
        """Take the unread outputs and their size."""
        chunks, size = job.chunks, job.unread_bytes
        self._resize(job, -size)
        job.chunks, job.unread_bytes = [], 0
        return chunks, size

    def put_chunks_back(self, job: Job, chunks: list[object], size: int) -> None:
        """Undo take_chunks for a reader that is gone."""
        self._resize(job, size)
        job.chunks[:0] = chunks
        job.unread_bytes += size

    def end(self, job: Job, deadline: float) -> None:
        """Mark a job as one that may be dropped when memory is short."""
        self._ended[job.id] = job
        self._deadlines.set(job, deadline)

    def revive(self, job: Job) -> None:
        """Undo `end`."""
        self._ended.pop(job.id, None)

    def drop(self, job: Job) -> None:
        """Delete a job."""
        if self.jobs.pop(job.id, None) is not None:
            self._ended.pop(job.id, None)
            self.bytes -= job.size
            job.gone = True
            job.changed()

    def _resize(self, job: Job, more: int) -> None:
        """Account for a job that grows or shrinks, unless it was deleted already."""
        if job.gone:
            return
        if more > 0:
            self._make_room(more)
        self.bytes += more

    def _make_room(self, size: int) -> None:
        """Drop the oldest results until `size` more bytes fit, but never the newest one."""
        while self.bytes + size > self._max_bytes and len(self._ended) > 1:
            self.drop(next(iter(self._ended.values())))
