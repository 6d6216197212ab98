"""How one job of the endpoint stands, from the answers about it. Pure, on a given clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.errors import EngineBroken, JobError, JobTimedOut
from worker.output import MAX_ERROR_CHARACTERS

# https://docs.runpod.io/serverless/endpoints/job-states
COMPLETED = "COMPLETED"
IN_QUEUE = "IN_QUEUE"
_FINAL = (COMPLETED, "FAILED", "CANCELLED", "TIMED_OUT")
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


@dataclass(slots=True, kw_only=True)
class Job:
    """One job. wait: seconds that it may be IN_QUEUE; all times are the clock's seconds."""

    id: str
    clock: Callable[[], float]
    wait: float
    status: str = IN_QUEUE
    answer: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False
    submitted: float = 0.0
    changed: float = 0.0
    queued: float = 0.0

    def __post_init__(self) -> None:
        self.submitted = self.changed = self.clock()

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for, or to cancel."""
        return self.complete or self.status in _FINAL

    def note(self, status: str) -> None:
        """Note the status; raises JobTimedOut when the job has waited for too long.

        A job that was queued again because its worker died waits anew.
        """
        now = self.clock()
        if self.status == IN_QUEUE:
            self.queued = now - self.submitted
        if status != self.status:
            self.status, self.changed = status, now
        if status == IN_QUEUE and now - self.changed >= self.wait:
            raise JobTimedOut(
                f"no worker took the job within {self.wait:g} s, so it was cancelled; "
                "see the endpoint's workers, or start the gateway with a longer --wait"
            )

    def heard(self) -> None:
        """Something new came: the next poll follows at once."""
        self.changed = self.clock()

    def pause(self) -> float:
        """Seconds until the next poll: a tenth of the time that nothing has changed for."""
        quiet = self.clock() - self.changed
        return min(max(quiet / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE)

    def output(self) -> Any:
        """The output of a job that is COMPLETED; raises JobError for one that is not.

        A FAILED job's worker says which status it is: an int from 400 to 599 in `output.status`.
        """
        output = self.answer.get("output")
        if self.status == COMPLETED:
            # what a worker with a generator gives: all that it yielded
            return output[0] if isinstance(output, list) and len(output) == 1 else output
        if self.status == "CANCELLED":
            raise JobError("the job was cancelled", status=410)
        if self.status == "TIMED_OUT":
            raise JobTimedOut("TIMED_OUT: the job took too long; ask for fewer tokens")
        raise _failure(self.answer.get("error"), output)


def _failure(error: Any, output: Any) -> JobError:
    """What a worker said about its failure."""
    sentence = " ".join(error.split())[:MAX_ERROR_CHARACTERS] if isinstance(error, str) else ""
    status = output.get("status") if isinstance(output, dict) else None
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
        status = 500
    return JobError(sentence or "the job failed; see the worker's log", status=status)


def check_numbering(expected: int, frame: Any) -> None:
    """Refuse a frame that is none, or not the next one: a part before it was lost.

    Raises EngineBroken.
    """
    if not isinstance(frame, dict) or "event" not in frame:
        raise EngineBroken("the endpoint's worker does not stream the blocking API's frames")
    if frame.get("message_num") != expected:
        raise EngineBroken("a part of the answer was lost on its way; send the request again")
