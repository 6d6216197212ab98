"""Who answers requests: the one interface between the runner and what is behind it."""

from __future__ import annotations

from typing import Any, Protocol

from worker.job import Request
from worker.progress import Progress
from worker.stream import Sink


class Answerer(Protocol):
    """Answers one request at a time or many; cancelling the task that asks frees the engine."""

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The output of one request; stream events go to the sink. Raises JobError."""
        ...
