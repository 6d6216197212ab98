"""Who the workers are: what each one runs, when it was last heard of, what it must stop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from emulator.errors import Refused
from emulator.jobs import Job
from emulator.limits import Limits

# What /health counts workers as.
STATES = ("idle", "initializing", "ready", "running", "throttled", "unhealthy")
_STOPS = 10_000


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process as the platform knows it.

    polls: requests of its that are held open; ready: it has asked for a job; leaving: it gets no
    job any more; stops: ids that it has not been told to stop yet; watchers: called when `stops`
    or `leaving` change.
    """

    id: str
    last_seen: float
    jobs: dict[str, Job] = field(default_factory=dict)
    polls: int = 0
    ready: bool = False
    leaving: bool = False
    unhealthy: bool = False
    stops: deque[str] = field(default_factory=lambda: deque(maxlen=_STOPS))
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def changed(self) -> None:
        """Tell everyone who watches."""
        for watcher in self.watchers:
            watcher()


class Roster:
    """All workers, by their ids."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        """Start without workers."""
        self._limits = limits
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._retired: set[str] = set()

    def get(self, worker_id: str) -> Worker | None:
        """Find a worker that is known."""
        return self._workers.get(worker_id)

    def all(self) -> list[Worker]:
        """List every known worker."""
        return list(self._workers.values())

    def seen(self, worker_id: str) -> Worker:
        """Note that a worker was heard of; a new one is added.

        Raises Refused: 410 for a worker that was retired for good, 429 when there are too many.
        """
        worker = self._workers.get(worker_id)
        if worker is None:
            if worker_id in self._retired:
                raise Refused(410, "this worker was replaced; stop it")
            if len(self._workers) >= self._limits.workers:
                raise Refused(429, "there are too many workers")
            worker = self._workers[worker_id] = Worker(worker_id, self._clock())
        worker.last_seen = self._clock()
        return worker

    @contextmanager
    def polling(self, worker: Worker) -> Iterator[None]:
        """Count a request that is held open: while there is one, the worker is alive."""
        worker.polls += 1
        try:
            yield
        finally:
            worker.polls -= 1
            worker.last_seen = self._clock()

    def remove(self, worker_id: str, *, for_good: bool) -> Worker | None:
        """Forget a worker; for_good: its id will never be taken again."""
        if for_good:
            self._retired.add(worker_id)
        return self._workers.pop(worker_id, None)

    def silent(self) -> list[str]:
        """Ids of workers that hold no request open and have not been heard of for too long."""
        now = self._clock()
        return [worker.id for worker in self._workers.values() if self._is_silent(worker, now)]

    def counts(self) -> dict[str, int]:
        """Count the workers as /health does."""
        counts = dict.fromkeys(STATES, 0)
        for worker in self._workers.values():
            counts[state(worker)] += 1
        counts["ready"] = counts["idle"]
        return counts

    def _is_silent(self, worker: Worker, now: float) -> bool:
        patience = self._limits.worker_silence if worker.ready else self._limits.start_timeout
        return worker.polls == 0 and now - worker.last_seen > patience


def state(worker: Worker) -> str:
    """Tell what /health counts this worker as."""
    if worker.unhealthy:
        return "unhealthy"
    if worker.jobs:
        return "running"
    return "idle" if worker.ready else "initializing"
