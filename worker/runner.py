"""Runs one job from its input to its outcome: the one place where errors become FAILED."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from worker import joblog
from worker.answerer import Answerer
from worker.deadline import deadline
from worker.errors import JobError, JobTimedOut, WorkerBug
from worker.frames import Merger
from worker.job import Request, parse_job
from worker.output import Outcome, completed, failed
from worker.progress import Progress
from worker.stream import Sink

# Seconds after a job's time in which the platform ends it itself: then its status is TIMED_OUT, and
# not FAILED as an answer of the worker's would make it.
PLATFORM_FIRST = 1.0
_LONGEST_POLICY_MS = 10**12


class Runner:
    """Runs jobs on an engine; as many at once as are asked for."""

    def __init__(
        self, engine: Answerer, *, job_timeout: float, platform_first: float = PLATFORM_FIRST
    ) -> None:
        """job_timeout: seconds that a job without a policy of its own may take."""
        self._engine = engine
        self._job_timeout = job_timeout
        self._platform_first = platform_first

    async def run(self, job: Mapping[str, Any], sink: Sink) -> Outcome:
        """Run one job ({"id", "input", ...} as the platform gives it); never raises JobError.

        Cancelling the task that runs this frees the engine's slot.
        """
        job_id = str(job.get("id", ""))
        progress = Progress()
        route = "?"
        try:
            request = parse_job(job.get("input"))
            route = request.path
            outcome = completed(await self._answer(request, sink, progress, self._seconds(job)))
        except JobError as error:
            outcome = failed(error)
        except asyncio.CancelledError:
            joblog.log_job(job_id, route, "CANCELLED", **progress.figures())
            raise
        except Exception:  # noqa: BLE001  # the boundary: a job's fault must not end the worker
            joblog.logger.exception("job %s: the worker failed on it", job_id)
            outcome = failed(WorkerBug(f"the worker failed on this job; its log names {job_id}"))
        status = "FAILED" if outcome.error else "COMPLETED"
        # What is wrong with a caller's input may repeat it.
        reason = outcome.error if outcome.status >= 500 else None
        code = outcome.status if outcome.error else None
        joblog.log_job(job_id, route, status, code=code, error=reason, **progress.figures())
        return outcome

    def wants_stream(self, job: Mapping[str, Any]) -> bool:
        """Whether the caller wants the answer while it is generated; False for a bad job."""
        try:
            return parse_job(job.get("input")).stream
        except JobError:
            return False

    def merger(self) -> Merger:
        """What makes chunks of one job's events."""
        return Merger()

    async def _answer(
        self, request: Request, sink: Sink, progress: Progress, seconds: float
    ) -> Any:
        late = JobTimedOut(
            f"TIMED_OUT: the job was not done within {seconds:g} s; ask for fewer tokens, "
            "or raise policy.executionTimeout and JOB_TIMEOUT"
        )
        with deadline(seconds + self._platform_first, late):
            return await self._engine.answer(request, sink, progress)

    def _seconds(self, job: Mapping[str, Any]) -> float:
        """The job's time: its policy's executionTimeout (ms) where that is shorter."""
        policy = job.get("policy")
        limit = policy.get("executionTimeout") if isinstance(policy, dict) else None
        if isinstance(limit, (int, float)) and 0 < limit < _LONGEST_POLICY_MS:
            return min(self._job_timeout, limit / 1000)
        return self._job_timeout
