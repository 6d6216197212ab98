"""The blocking API on the classic, which speaks it: its silent failures become clear errors.

What each endpoint takes and answers: text-generation-webui@snapshot-2023-11-05,
extensions/api/blocking_api.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from worker.client import EngineClient
from worker.contract.chat import start
from worker.contract.parameters import prompt_of
from worker.engines.classic_generate import ClassicGenerator
from worker.engines.classic_models import ClassicModels
from worker.engines.classic_request import Preparer
from worker.engines.classic_stream import Frame
from worker.errors import EngineBroken
from worker.frames import END_FRAME, history_frame, text_frame
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots, Use
from worker.stream import Sink

Endpoint = Callable[[Request, Sink, Progress], Awaitable[Any]]


class ClassicApi:
    """Answers blocking requests."""

    def __init__(
        self,
        client: EngineClient,
        slots: Slots,
        *,
        models: ClassicModels,
        generator: ClassicGenerator,
        preparer: Preparer,
    ) -> None:
        self._client = client
        self._slots = slots
        self._models = models
        self._generator = generator
        self._preparer = preparer
        self._endpoints: Mapping[str, Endpoint] = {
            "/model": self._model,
            "/generate": self._generate,
            "/chat": self._chat,
            "/token-count": self._token_count,
            "/stop-stream": self._stop_stream,
        }

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The endpoint's answer; stream frames go to the sink. Raises JobError."""
        return await self._endpoints[request.path](request, sink, progress)

    async def count(self, prompt: str) -> int:
        """The number of a prompt's tokens."""
        answer = await self._client.json("POST", "/api/v1/token-count", {"prompt": prompt})
        try:
            return int(answer["results"][0]["tokens"])
        except (TypeError, LookupError, ValueError) as error:
            raise EngineBroken("the engine counted no tokens; try again") from error

    async def _model(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The model's name, or what `action` asks for."""
        return await self._models.answer(request.body)

    async def _generate(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """Go on from a prompt."""
        prepared = self._preparer.generate(request.body)

        async def on_frame(frame: Frame) -> None:
            if frame.data["text"]:
                await sink.put(text_frame(frame.data["text"]), frame.size)

        async with self._slots.generation() as stop:
            progress.slot()
            self._models.need()
            generated = await self._generator.generate(
                prepared,
                stop=stop,
                progress=progress,
                on_frame=on_frame if request.stream else None,
            )
        if request.stream:
            await sink.put(END_FRAME, 1)
        return {"results": [{"text": generated.value}]}

    async def _chat(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """One more turn of a chat."""
        prepared = self._preparer.chat(request.body)
        chat = prepared.chat
        assert chat is not None  # noqa: S101 - what `Preparer.chat` returns
        history: Any = start(chat)

        async def on_frame(frame: Frame) -> None:
            await sink.put(history_frame(frame.data["history"]), frame.size)

        if not chat.nothing_to_do:
            async with self._slots.generation() as stop:
                progress.slot()
                self._models.need()
                generated = await self._generator.generate(
                    prepared,
                    stop=stop,
                    progress=progress,
                    on_frame=on_frame if request.stream else None,
                )
            history = history if generated.value is None else generated.value
        if request.stream:
            await sink.put(END_FRAME, 1)
        return {"results": [{"history": history}]}

    async def _token_count(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """Count the tokens of a prompt."""
        prompt = prompt_of(request.body)
        async with self._slots.use(Use.MODEL):
            self._models.need()
            return {"results": [{"tokens": await self.count(prompt)}]}

    async def _stop_stream(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """End every running generation of this worker; each returns what it has."""
        self._slots.stop_all()
        return {"results": "success"}
