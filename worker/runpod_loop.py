"""The job loop: a job is taken the moment a place is free, and started at once.

The SDK's own loop (`stock_loop` runs it) sleeps up to a second between jobs, loses a job that
arrives during shutdown, and holds a place until the result is delivered. Here the place is free
when the job's work is over; its result is delivered beside the next job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp

from worker.delivery import Delivery
from worker.errors import JobError, WorkerBug
from worker.in_progress import InProgress, Job
from worker.long_poll import LongPoll
from worker.output import Outcome, failed
from worker.runpod_sdk import Sdk
from worker.serving import EXIT_FAILED, EXIT_STOPPED, Gate, Limits, Runner, first_of, on_signals
from worker.stream import Channel, Discard, Sink

logger = logging.getLogger(__name__)


async def serve(
    runner: Runner,
    *,
    sdk: Sdk,
    capacity: int,
    grace_period: float,
    gate: Gate | None = None,
    fatal: Gate | None = None,
    limits: Limits | None = None,
) -> int:
    """Check the worker's fitness, then take and answer jobs until the worker is to end.

    capacity: jobs at once. gate: while it is closed no job is asked for. SIGTERM or SIGINT: no new
    job; those that run have grace_period seconds, then they are FAILED; returns 0. `fatal` opens
    (the engine is gone for good): the same with limits.fatal seconds; returns 1. A second signal
    ends everything at once; returns 1. A failed fitness check ends the process (exit 1).
    """
    limits = limits or Limits()
    await sdk.check_fitness()
    with sdk.heartbeat():
        async with sdk.session() as session:
            loop = JobLoop(runner, sdk, session, capacity=capacity, gate=gate, limits=limits)
            return await loop.run(grace_period, fatal or asyncio.Event())


class JobLoop:
    """Takes, runs, answers and stops jobs over one HTTP session."""

    def __init__(
        self,
        runner: Runner,
        sdk: Sdk,
        session: aiohttp.ClientSession,
        *,
        capacity: int,
        gate: Gate | None,
        limits: Limits,
    ) -> None:
        """Start without jobs; nothing is asked for before `run`."""
        self._runner = runner
        self._sdk = sdk
        self._session = session
        self._gate = gate
        self._limits = limits
        self._delivery = Delivery(session, sdk, limits)
        self._poll = LongPoll("job-take", timeout=limits.poll, floor=limits.floor)
        self._jobs = InProgress(sdk, places=capacity, undelivered_bytes=limits.undelivered_bytes)
        self._ending = False

    async def run(self, grace_period: float, fatal: Gate) -> int:
        """Take and answer jobs until a signal, `fatal` or a fault in here; the exit code."""
        first, second = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (second if first.is_set() else first).set()

        with on_signals(on_signal):
            intake = asyncio.create_task(self._take_jobs())
            stops = asyncio.create_task(self._stop_jobs())
            try:
                await first_of(first.wait(), fatal.wait(), intake)
                stopped = first.is_set()
                grace = grace_period if stopped else self._limits.fatal
                window = self._limits.window if stopped else 0.0
                await first_of(self._end(intake, grace, window), second.wait())
            finally:
                await _cancel({intake, stops} | self._jobs.tasks)
        return EXIT_STOPPED if stopped and not second.is_set() else EXIT_FAILED

    async def _take_jobs(self) -> None:
        """Ask for as many jobs as there is room for, over and over."""
        while not self._ending:
            if self._gate is not None:
                await self._gate.wait()
            room = self._jobs.room()
            if not room:
                await self._jobs.change()
                # Jobs that end together make room together: one request for all of it.
                await asyncio.sleep(0)
                continue
            for payload in await self._poll.ask(self._sdk.take(self._session, room)):
                self._begin(payload)

    def _begin(self, payload: Any) -> None:
        """Start a job that was taken; what has no usable id can't be answered and is dropped."""
        job_id = payload.get("id") if isinstance(payload, dict) else None
        if not isinstance(job_id, str) or not job_id or not job_id.isprintable():
            logger.error("the platform sent something without a usable job id; it is ignored")
        elif self._jobs.get(job_id) is not None:
            logger.warning("job %s was sent again while it is in progress; ignored", job_id)
        else:
            job = self._jobs.add(job_id)
            job.task = asyncio.create_task(self._work(job, payload))
            job.task.add_done_callback(lambda _: self._jobs.remove(job))

    async def _work(self, job: Job, payload: Mapping[str, Any]) -> None:
        """Run a job and post its result; nothing is posted when the job is stopped."""
        stream = False
        try:
            stream = self._runner.wants_stream(payload)
            if stream:
                outcome = await self._streamed(job, payload)
            else:
                outcome = await self._outcome(job, payload, Discard())
        except Exception:  # the boundary: whatever happens a job is answered
            logger.exception("job %s: the worker failed on it", job.id)
            outcome = failed(WorkerBug(f"the worker failed on this job; its log names {job.id}"))
        self._jobs.leave_place(job, len(outcome.body))
        # The request for the next job goes first: intake takes one turn of the loop to see all the
        # places that became free, and one to ask.
        for _ in range(2):
            await asyncio.sleep(0)
        await self._delivery.result(job.id, outcome.body, stream=stream)

    async def _streamed(self, job: Job, payload: Mapping[str, Any]) -> Outcome:
        """Run a job, posting its chunks meanwhile and to the end."""
        channel = Channel(self._runner.merger())
        poster = asyncio.create_task(self._delivery.chunks(job.id, channel))
        try:
            outcome = await self._outcome(job, payload, channel)
            channel.close()
            await poster
        finally:
            poster.cancel()
        return outcome

    async def _outcome(self, job: Job, payload: Mapping[str, Any], sink: Sink) -> Outcome:
        """Run a job and free its place; a job that the worker itself ends is FAILED."""
        try:
            outcome = await self._runner.run(payload, sink)
        except asyncio.CancelledError:
            if not job.ending:
                logger.info("job %s was stopped", job.id)
                raise
            outcome = failed(
                JobError(
                    "the worker was stopped before the job was done; send it again", status=503
                )
            )
        self._jobs.leave_place(job, len(outcome.body))
        return outcome

    async def _stop_jobs(self) -> None:
        """Cancel the jobs that the platform says are to be stopped, until cancelled itself."""
        if not self._sdk.can_be_stopped:
            logger.warning("jobs can't be stopped: the job-take URL tells no job-stop URL")
            return
        poll = LongPoll("job-stop", timeout=self._limits.poll, floor=self._limits.stop_floor)
        while True:
            for job_id in await poll.ask(self._sdk.stop_signals(self._session)):
                job = self._jobs.get(job_id)
                if job is not None:
                    job.task.cancel()

    async def _end(self, intake: asyncio.Task[None], grace: float, window: float) -> None:
        """Take no more jobs, let those in progress end, and fail those that don't in time."""
        end = asyncio.get_running_loop().time() + grace
        self._ending = True
        if self._poll.under_way:
            await self._poll.close(window)
        else:
            intake.cancel()
        await asyncio.wait({intake})
        await _ended(self._jobs.tasks, end - asyncio.get_running_loop().time())
        for job in self._jobs:
            if job.runs:
                job.ending = True
                job.task.cancel()
        await _ended(self._jobs.tasks, self._limits.last_posts)
        for job in self._jobs:
            logger.error("job %s: no result could be delivered before the worker ended", job.id)


async def _ended(tasks: set[asyncio.Task[None]], timeout: float) -> None:
    """Wait for all of them, at most `timeout` seconds."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, timeout))


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel and wait for all of them; a fault among them is logged."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            logger.error("the job loop failed", exc_info=result)
