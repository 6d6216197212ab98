"""One job: its record, and what a client is told about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

IN_QUEUE: Final = "IN_QUEUE"
IN_PROGRESS: Final = "IN_PROGRESS"
COMPLETED: Final = "COMPLETED"
FAILED: Final = "FAILED"
CANCELLED: Final = "CANCELLED"
TIMED_OUT: Final = "TIMED_OUT"
FINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED, TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a job may run, counted from its take, and how long it may exist; both in seconds."""

    execution_timeout: float
    ttl: float


@dataclass(slots=True, eq=False)
class Job:
    """A job from its submission until its result is dropped. Times are the clock's seconds.

    payload: the JSON object that a worker receives; result: "output" and "error", as far as there
    are any (while it runs: the last progress); chunks: streamed outputs that nobody has read yet;
    watchers: called whenever the status or the chunks change; gone: it was deleted.
    """

    id: str
    payload: bytes
    policy: Policy
    retention: float
    submitted: float
    webhook: str | None = None
    status: str = IN_QUEUE
    tries: int = 0
    worker_id: str | None = None
    taken: float | None = None
    ended: float | None = None
    deadline: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    result_bytes: int = 0
    chunks: list[Any] = field(default_factory=list)
    unread_bytes: int = 0
    chunk_posts: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)
    gone: bool = False

    @property
    def final(self) -> bool:
        """Whether the job has its answer."""
        return self.status in FINAL

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it: it has its answer, or it was deleted."""
        return self.gone or self.status in FINAL

    @property
    def size(self) -> int:
        """Bytes that the job keeps."""
        return len(self.payload) + self.result_bytes + self.unread_bytes

    def changed(self) -> None:
        """Tell everyone who watches."""
        for watcher in self.watchers:
            watcher()

    def answer(self) -> dict[str, Any]:
        """Make what /status answers; times are whole milliseconds."""
        answer: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.taken is not None:
            answer["delayTime"] = _milliseconds(self.taken - self.submitted)
            answer["workerId"] = self.worker_id
        if self.ended is not None:
            start = self.ended if self.taken is None else self.taken
            answer["executionTime"] = _milliseconds(self.ended - start)
        return {**answer, **self.result}


def _milliseconds(seconds: float) -> int:
    """Round a duration to whole milliseconds."""
    return round(seconds * 1000)
