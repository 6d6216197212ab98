"""What the platform does with the jobs of one endpoint: the state machine, without any I/O.

    submit -> IN_QUEUE -> take -> IN_PROGRESS -> finish -> COMPLETED or FAILED
                 ^                     |-> cancel -> CANCELLED
                 |                     |-> time-out -> TIMED_OUT
                 `---- worker died ----'

Every method runs to its end at once and every call is made from one thread.
"""

from __future__ import annotations

import json
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.errors import Refused
from emulator.jobs import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    IN_QUEUE,
    TIMED_OUT,
    Job,
    Policy,
)
from emulator.limits import Limits
from emulator.roster import Roster, Worker
from emulator.store import Store
from emulator.submission import Submission


@dataclass(slots=True, eq=False)
class Taker:
    """A worker's request for jobs that waits; `give` is called once, with at least one job."""

    worker: Worker
    limit: int
    give: Callable[[list[Job]], None]


def _nothing(_: Any) -> None:
    """Do nothing."""


class Endpoint:
    """One endpoint's queue, jobs and workers.

    on_end: called with each job that gets its answer; on_lost: with the id of a worker that fell
    silent; on_refresh: with the id of a worker that asks to be replaced.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Callable[[], float],
        on_end: Callable[[Job], None] = _nothing,
        on_lost: Callable[[str], None] = _nothing,
        on_refresh: Callable[[str], None] = _nothing,
    ) -> None:
        """Start with an empty queue."""
        self.limits = limits
        self.roster = Roster(limits, clock)
        self.draining = False
        self._clock = clock
        self._on_end = on_end
        self._on_lost = on_lost
        self._on_refresh = on_refresh
        self._store = Store(limits.stored_bytes)
        self._queue: OrderedDict[str, Job] = OrderedDict()
        self._takers: OrderedDict[int, Taker] = OrderedDict()
        self._ended = {COMPLETED: 0, FAILED: 0, CANCELLED: 0, TIMED_OUT: 0}
        self._retried = 0

    # What clients do

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs that are kept, by id."""
        return self._store.jobs

    def job(self, job_id: str) -> Job:
        """Find a job; Refused (404) for one that never was or is kept no longer."""
        job = self._store.jobs.get(job_id)
        if job is None:
            raise Refused(404, "there is no job with this id; results are kept for a while only")
        return job

    def submit(self, submission: Submission, *, sync: bool) -> Job:
        """Put a new job at the queue's end; Refused (429) when there is no room."""
        if len(self._queue) >= self.limits.queue_length:
            raise Refused(429, "the queue is full; try again when jobs have ended")
        job_id = f"{'sync-' if sync else ''}{uuid.uuid4()}-u1"
        now = self._clock()
        job = Job(
            id=job_id,
            payload=json.dumps({**submission.fields, "id": job_id}).encode(),
            policy=submission.policy,
            retention=self.limits.sync_retention if sync else self.limits.retention,
            submitted=now,
            webhook=submission.webhook,
        )
        self._store.add(job, now + job.policy.ttl)
        self._queue[job_id] = job
        self._hand_over()
        return job

    def cancel(self, job: Job) -> None:
        """End a job that has no answer yet; its worker is told to stop it."""
        if not job.over:
            self._stop(job)
            self._end(job, CANCELLED)

    def retry(self, job: Job) -> None:
        """Queue a job again that failed or timed out, under its id; Refused (400) for others."""
        if job.status not in (FAILED, TIMED_OUT):
            raise Refused(
                400,
                f"only a job that is FAILED or TIMED_OUT can be retried, this one is {job.status}",
            )
        self._store.revive(job)
        self._retried += 1
        job.tries, job.submitted, job.ended, job.taken = 0, self._clock(), None, None
        self._to_queue(job, first=False)
        self._hand_over()

    def purge(self) -> int:
        """Cancel every job that waits in the queue; tells how many."""
        waiting = list(self._queue.values())
        for job in waiting:
            self._end(job, CANCELLED)
        return len(waiting)

    def set_ttl(self, job: Job, seconds: float) -> None:
        """Let a job be deleted this many seconds from now, whatever its state."""
        job.policy = Policy(job.policy.execution_timeout, self._clock() + seconds - job.submitted)
        end = job.submitted + job.policy.ttl
        self._store.set_deadline(job, end if job.final else min(job.deadline, end))

    def read_chunks(self, job: Job) -> tuple[list[Any], int]:
        """Take the streamed outputs that nobody has read, and their size in bytes."""
        return self._store.take_chunks(job)

    def unread_chunks(self, job: Job, chunks: list[Any], size: int) -> None:
        """Undo read_chunks for a reader that is gone."""
        self._store.put_chunks_back(job, chunks, size)

    def health(self) -> dict[str, dict[str, int]]:
        """Make what /health answers."""
        return {
            "jobs": {
                "completed": self._ended[COMPLETED],
                "failed": self._ended[FAILED] + self._ended[TIMED_OUT],
                "inProgress": sum(len(worker.jobs) for worker in self.roster.all()),
                "inQueue": len(self._queue),
                "retried": self._retried,
            },
            "workers": self.roster.counts(),
        }

    # What workers do

    def take(self, worker: Worker, limit: int) -> list[Job]:
        """Give a worker up to `limit` jobs from the queue's head; [] when there is none."""
        worker.ready = True
        if self.draining or worker.leaving:
            return []
        return [self._start(worker) for _ in range(min(limit, len(self._queue)))]

    def wait(self, taker: Taker) -> None:
        """Let a worker wait for jobs, behind all who wait already."""
        self._takers[id(taker)] = taker

    def leave(self, taker: Taker) -> None:
        """Take back `wait`."""
        self._takers.pop(id(taker), None)

    def give_back(self, jobs: list[Job], worker: Worker) -> None:
        """Put jobs back to the queue's head that never reached the worker."""
        for job in reversed(jobs):
            if worker.jobs.get(job.id) is job:
                job.tries -= 1
                self._to_queue(job, first=True)
        self._hand_over()

    def running_job(self, job_id: str, worker_id: str) -> Job | None:
        """Find a job that this worker runs now; None when it is not (any more) its job."""
        worker = self.roster.get(worker_id)
        return None if worker is None else worker.jobs.get(job_id)

    def progress(self, job: Job, output: Any, size: int) -> None:
        """Keep what /status shows while the job runs."""
        self._store.set_result(job, {"output": output}, size)

    def chunk(self, job: Job, outputs: list[Any], size: int) -> None:
        """Keep streamed outputs; Refused (413) when too much is unread."""
        if job.unread_bytes + size > self.limits.unread_bytes:
            raise Refused(413, "nobody reads this job's stream")
        job.chunk_posts += 1
        self._store.add_chunks(job, outputs, size)
        job.changed()

    def finish(self, job: Job, result: dict[str, Any], size: int) -> None:
        """End a job with what its worker sent: "error" makes it FAILED."""
        self._end(job, FAILED if "error" in result else COMPLETED, result, size)

    def refresh(self, worker_id: str) -> None:
        """Replace a worker that asks for it: it gets no job any more."""
        worker = self.roster.get(worker_id)
        if worker is not None and not worker.leaving:
            self.dismiss(worker)
            self._on_refresh(worker_id)

    # What the fleet and the clock do

    def dismiss(self, worker: Worker) -> None:
        """Give a worker no job any more and end its polls."""
        worker.leaving = True
        for taker in [taker for taker in self._takers.values() if taker.worker is worker]:
            self.leave(taker)
        worker.changed()

    def drain(self) -> None:
        """Give nobody a job any more and end all polls."""
        self.draining = True
        for worker in self.roster.all():
            self.dismiss(worker)

    def retire(self, worker_id: str, *, for_good: bool = True) -> None:
        """Forget a dead worker; its jobs go back to the queue's head, in their order."""
        worker = self.roster.remove(worker_id, for_good=for_good)
        if worker is None:
            return
        self.dismiss(worker)
        for job in reversed(list(worker.jobs.values())):
            if job.tries < self.limits.tries:
                self._retried += 1
                self._to_queue(job, first=True)
            else:
                self._end(job, FAILED, _worker_died(job))
        self._hand_over()

    def tick(self) -> None:
        """Do what is due: time-outs, deletions, workers that fell silent."""
        now = self._clock()
        for job in self._store.due(now):
            if job.final:
                self._store.drop(job)
            elif now >= job.submitted + job.policy.ttl:
                self._delete(job)
            else:
                self._stop(job)
                self._end(job, TIMED_OUT, _timed_out(job))
        for worker_id in self.roster.silent():
            self.retire(worker_id, for_good=False)
            self._on_lost(worker_id)

    # Steps

    def _start(self, worker: Worker) -> Job:
        """Move the queue's first job to the worker."""
        job = self._queue.popitem(last=False)[1]
        now = self._clock()
        job.status, job.worker_id, job.taken = IN_PROGRESS, worker.id, now
        job.tries += 1
        worker.jobs[job.id] = job
        ttl_end = job.submitted + job.policy.ttl
        self._store.set_deadline(job, min(now + job.policy.execution_timeout, ttl_end))
        job.changed()
        return job

    def _to_queue(self, job: Job, *, first: bool) -> None:
        """Queue a job again, without anything of its last try."""
        self._leave_worker(job)
        self._store.take_chunks(job)
        self._store.set_result(job, {}, 0)
        job.status, job.worker_id, job.taken = IN_QUEUE, None, None
        self._store.set_deadline(job, job.submitted + job.policy.ttl)
        self._queue[job.id] = job
        self._queue.move_to_end(job.id, last=not first)
        job.changed()

    def _hand_over(self) -> None:
        """Give queued jobs to those who wait, first come first served."""
        while self._queue and self._takers and not self.draining:
            taker = self._takers.popitem(last=False)[1]
            taker.give(self.take(taker.worker, taker.limit))

    def _end(
        self, job: Job, status: str, result: dict[str, Any] | None = None, size: int = 0
    ) -> None:
        """Give a job its answer."""
        self._queue.pop(job.id, None)
        self._leave_worker(job)
        self._store.set_result(job, result or {}, size)
        job.status, job.ended = status, self._clock()
        self._store.end(job, job.ended + job.retention)
        self._ended[status] += 1
        job.changed()
        self._on_end(job)

    def _delete(self, job: Job) -> None:
        """Delete a job that has no answer."""
        self._stop(job)
        self._queue.pop(job.id, None)
        self._leave_worker(job)
        self._store.drop(job)

    def _stop(self, job: Job) -> None:
        """Tell the job's worker to stop it."""
        worker = self._worker_of(job)
        if worker is not None:
            worker.stops.append(job.id)
            worker.changed()

    def _leave_worker(self, job: Job) -> None:
        """Make the job no worker's."""
        worker = self._worker_of(job)
        if worker is not None:
            del worker.jobs[job.id]

    def _worker_of(self, job: Job) -> Worker | None:
        """Find the worker that runs the job."""
        worker = None if job.worker_id is None else self.roster.get(job.worker_id)
        return worker if worker is not None and worker.jobs.get(job.id) is job else None


def _worker_died(job: Job) -> dict[str, Any]:
    """Say why a job was given up."""
    return {
        "error": f"the worker stopped {job.tries} times while it ran this job; "
        "look at the worker's log before you send it again"
    }


def _timed_out(job: Job) -> dict[str, Any]:
    """Say why a job was stopped."""
    return {
        "error": f"the job ran longer than {job.policy.execution_timeout:g} seconds; "
        "ask for less or set policy.executionTimeout"
    }
