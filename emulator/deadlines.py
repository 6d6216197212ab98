"""Which jobs are due: a heap with one live entry a job; an entry that was replaced is stale."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from emulator.jobs import Job

_SLACK = 1024


class Deadlines:
    """The deadlines of all jobs of a mapping. Setting and popping cost O(log n)."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        """Watch over the jobs of this mapping."""
        self._jobs = jobs
        self._heap: list[tuple[float, str]] = []

    def set(self, job: Job, when: float) -> None:
        """Replace the job's deadline."""
        job.deadline = when
        heapq.heappush(self._heap, (when, job.id))
        if len(self._heap) > 2 * len(self._jobs) + _SLACK:
            self._heap = [(job.deadline, job.id) for job in self._jobs.values()]
            heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[Job]:
        """Take out all jobs whose deadline has come."""
        while self._heap and self._heap[0][0] <= now:
            when, job_id = heapq.heappop(self._heap)
            job = self._jobs.get(job_id)
            if job is not None and job.deadline == when:
                yield job
