"""Which of an engine's two dialects a request is in."""

from __future__ import annotations

from typing import Any

from worker.answerer import Answerer
from worker.job import Request
from worker.progress import Progress
from worker.stream import Sink


class Dispatch:
    """Sends blocking requests one way and OpenAI-compatible ones the other."""

    def __init__(self, *, blocking: Answerer, openai: Answerer) -> None:
        """Each is native to the engine or a translation; nothing here knows which."""
        self._blocking = blocking
        self._openai = openai

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The output of one request. Raises JobError."""
        answerer = self._blocking if request.blocking else self._openai
        return await answerer.answer(request, sink, progress)
