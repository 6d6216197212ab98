"""One endpoint as a calculation: its queue, its workers, and both ways the platform scales. Pure.

The queue hands jobs over as the platform's protocol does: to the worker that has asked longest, as
many as it has room for. A worker runs `slots` jobs at once, each at the same speed, and holds
`extra` more. What the platform does not tell is assumed: a worker is started at once when there is
none; after that QUEUE_DELAY starts one more every `delay` seconds while the oldest job has waited
as long.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# arrival and work, in seconds
Job = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What an operator chooses, and how long a cold start takes; seconds.

    requests: the scaler is REQUEST_COUNT with this value; None: QUEUE_DELAY with `delay`.
    """

    slots: int
    extra: int = 2
    least: int = 0
    most: int = 32
    start: float = 20.0
    idle: float = 5.0
    requests: float | None = None
    delay: float = 4.0


@dataclass(slots=True)
class Outcome:
    """waits: seconds that each job waited for a slot; worker_seconds: what is billed."""

    waits: list[float] = field(default_factory=list)
    worker_seconds: float = 0.0
    end: float = 0.0


@dataclass(slots=True, eq=False)
class _Worker:
    born: float
    held: deque[Job] = field(default_factory=deque)
    running: int = 0
    asks: bool = False
    idle_since: float | None = None


def poisson(rate: float, work: float, count: int, seed: int) -> list[Job]:
    """Jobs that come at random (so many a second), with exponential work of this mean."""
    draw = random.Random(seed)  # noqa: S311 - the same jobs in every run
    times = itertools.accumulate(draw.expovariate(rate) for _ in range(count))
    return [(time, draw.expovariate(1 / work)) for time in times]


def simulate(jobs: Sequence[Job], endpoint: Endpoint) -> Outcome:
    """Run the jobs, in the order they come, to their end."""
    return _Run(jobs, endpoint).outcome()


class _Run:
    def __init__(self, jobs: Sequence[Job], endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self._queue: deque[Job] = deque()
        self._asking: deque[_Worker] = deque()
        self._workers: set[_Worker] = set()
        self._in_progress = 0
        self._left = len(jobs)
        self._last_added = -math.inf
        self._looking = False
        self._outcome = Outcome()
        for _ in range(endpoint.least):
            self._started(self._add())
        for job in jobs:
            self._at(job[0], lambda job=job: self._arrives(job))  # type: ignore[misc]

    def outcome(self) -> Outcome:
        """Take event after event until the last job is done."""
        while self._left:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        result = self._outcome
        result.end = self._now
        result.worker_seconds += sum(self._now - worker.born for worker in self._workers)
        return result

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happen))

    def _arrives(self, job: Job) -> None:
        self._queue.append(job)
        self._hand_over()
        self._scale()
        if self._endpoint.requests is None and not self._looking:
            self._look_later()

    def _hand_over(self) -> None:
        """Give the jobs that wait to the workers that wait, the longest waiting ones first."""
        while self._queue and self._asking:
            worker = self._asking.popleft()
            worker.asks = False
            for _ in range(min(self._room(worker), len(self._queue))):
                worker.held.append(self._queue.popleft())
                self._in_progress += 1
            self._run(worker)
            self._ask(worker)

    def _room(self, worker: _Worker) -> int:
        places = self._endpoint.slots + self._endpoint.extra
        return places - worker.running - len(worker.held)

    def _ask(self, worker: _Worker) -> None:
        if not worker.asks and self._room(worker):
            worker.asks = True
            self._asking.append(worker)

    def _run(self, worker: _Worker) -> None:
        worker.idle_since = None
        while worker.held and worker.running < self._endpoint.slots:
            arrival, work = worker.held.popleft()
            worker.running += 1
            self._outcome.waits.append(self._now - arrival)
            self._at(self._now + work, lambda: self._done(worker))

    def _done(self, worker: _Worker) -> None:
        worker.running -= 1
        self._in_progress -= 1
        self._left -= 1
        self._run(worker)
        self._ask(worker)
        self._hand_over()
        self._rest(worker)

    def _rest(self, worker: _Worker) -> None:
        """A worker without a job goes after the idle timeout."""
        if worker.running or worker.held:
            return
        worker.idle_since = since = self._now
        self._at(self._now + self._endpoint.idle, lambda: self._stop(worker, since))

    def _stop(self, worker: _Worker, since: float) -> None:
        if worker.idle_since != since or len(self._workers) <= self._endpoint.least:
            return
        self._workers.discard(worker)
        self._asking.remove(worker)
        self._outcome.worker_seconds += self._now - worker.born

    def _add(self) -> _Worker:
        worker = _Worker(self._now)
        self._workers.add(worker)
        self._last_added = self._now
        return worker

    def _started(self, worker: _Worker) -> None:
        self._ask(worker)
        self._hand_over()
        self._rest(worker)

    def _scale(self) -> None:
        """Start as many workers as the scaler wants."""
        for _ in range(min(self._wanted(), self._endpoint.most) - len(self._workers)):
            worker = self._add()
            self._at(self._now + self._endpoint.start, lambda worker=worker: self._started(worker))  # type: ignore[misc]

    def _look(self) -> None:
        self._scale()
        self._look_later()

    def _look_later(self) -> None:
        """Look again when the oldest job is late, and a worker was not added just before."""
        self._looking = bool(self._queue)
        if self._queue:
            due = max(self._queue[0][0], self._last_added) + self._endpoint.delay
            # it has passed already when there are as many workers as may be
            self._at(due if due > self._now else self._now + self._endpoint.delay, self._look)

    def _wanted(self) -> int:
        chosen, there = self._endpoint, len(self._workers)
        if chosen.requests is not None:
            return math.ceil((len(self._queue) + self._in_progress) / chosen.requests)
        if not there:
            return 1
        if not self._queue:
            return there
        since = max(self._queue[0][0], self._last_added)
        return there + (self._now >= since + chosen.delay)
