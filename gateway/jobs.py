"""Requests as jobs of the endpoint: queued, followed to their end, cancelled when nobody waits.

A job is queued with /run and followed with /status or /stream, not with /runsync: that names the
job only in its answer, so a client that hangs up before could not cancel it. Nothing much is lost:
the pause before each poll is a tenth of the time waited so far (0.01 s at least, 1 s at most), so
an answer is at most a tenth later than /runsync's, and a long job is asked about once a second.
How long a job may run is the platform's business: it ends as TIMED_OUT there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.job import COMPLETED, IN_QUEUE, Job
from gateway.runpod_api import RunpodApi
from worker.errors import EngineBroken, JobError
from worker.job import Request, parse_job
from worker.joblog import log_job, logger

_SHOWN_AFTER = 1.0


class Jobs:
    """Runs jobs, as many at once as are asked for."""

    def __init__(self, api: RunpodApi, *, wait: float, goodbye: float = 5.0) -> None:
        """wait: seconds that a job may be IN_QUEUE; goodbye: seconds for the last cancels."""
        self._api = api
        self._wait = wait
        self._goodbye = goodbye
        self._cancels: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until jobs that were left are cancelled, for a while."""
        if self._cancels:
            _, late = await asyncio.wait(self._cancels, timeout=self._goodbye)
            for task in late:
                task.cancel()

    async def result(self, job_input: Mapping[str, Any]) -> Any:
        """The output of a job; cancelling the task that waits cancels the job. Raises JobError."""
        async with self._job(job_input) as job:
            await self._until_over(job)
            return job.output()

    async def chunks(
        self, job_input: Mapping[str, Any], is_last: Callable[[Any], bool]
    ) -> AsyncGenerator[Any, None]:
        """What a job streams, as it comes; its output where it streams nothing.

        is_last: whether nothing follows after this chunk. Closing the generator earlier cancels
        the job. Raises JobError.
        """
        async with self._job(job_input) as job:
            some = False
            while True:
                status, chunks = await self._api.stream(job.id)
                if some and status == IN_QUEUE:
                    raise EngineBroken("the worker stopped in the middle of the answer; try again")
                self._note(job, status)
                for chunk in chunks:
                    some = True
                    job.complete = is_last(chunk)
                    yield chunk
                    if job.complete:
                        return
                if chunks:
                    job.heard()
                elif job.over:
                    break
                await asyncio.sleep(job.pause())
            await self._until_over(job)
            output = job.output()
            if not some:
                yield output

    async def _until_over(self, job: Job) -> None:
        """Poll until the job has ended and its answer is there."""
        while True:
            job.answer = await self._api.status(job.id)
            self._note(job, str(job.answer.get("status")))
            if job.over:
                return
            await asyncio.sleep(job.pause())

    @asynccontextmanager
    async def _job(self, job_input: Mapping[str, Any]) -> AsyncIterator[Job]:
        """Queue a job; one that is left before its end is cancelled, and that not waited for."""
        request = parse_job(job_input)
        job = Job(id=await self._submit(job_input), clock=time.monotonic, wait=self._wait)
        try:
            yield job
        finally:
            if not job.over:
                self._in_background(self._cancel(job.id))
            _log(job, request)

    async def _submit(self, job_input: Mapping[str, Any]) -> str:
        """Queue a job; when the caller leaves meanwhile, it is cancelled once its id is known."""
        submitting = asyncio.create_task(self._api.run(job_input))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            self._in_background(self._cancel_submitted(submitting))
            raise

    async def _cancel_submitted(self, submitting: asyncio.Task[str]) -> None:
        try:
            job_id = await submitting
        except JobError:
            return
        await self._cancel(job_id)

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._api.cancel(job_id)
        except JobError as error:
            logger.warning("job %s could not be cancelled and may go on: %s", job_id, error)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    def _note(self, job: Job, status: str) -> None:
        """Take in a status; a job that waits is logged once."""
        shown = job.queued >= _SHOWN_AFTER
        job.note(status)
        if status == IN_QUEUE and not shown and job.queued >= _SHOWN_AFTER:
            logger.info("job %s is IN_QUEUE: it waits for a worker, which may be starting", job.id)


def _log(job: Job, request: Request) -> None:
    """One line for each job, with its times."""
    ended = job.status if job.over else "CANCELLED"
    log_job(
        job.id,
        request.path,
        COMPLETED if job.complete else ended,
        queued=f"{job.queued:.2f}s",
        total=f"{job.clock() - job.submitted:.2f}s",
    )
