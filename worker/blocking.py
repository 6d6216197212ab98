"""The blocking API's five endpoints on an engine that does not speak it itself.

What each takes and answers: text-generation-webui@e18a0460 extensions/api/blocking_api.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from worker.changes import Changes
from worker.contract.characters import Character, load_character
from worker.contract.chat import Chat, parse_chat, start, update
from worker.contract.chat_prompt import build as build_prompt
from worker.contract.chat_prompt import fit, max_dropped, stopping_strings
from worker.contract.fields import field, mapping, text
from worker.contract.parameters import Parameters, parse_parameters, prompt_of
from worker.engines.backend import Backend, Completion
from worker.errors import EngineDown, EngineRefused, InvalidJob, UnknownRoute
from worker.frames import END_FRAME, history_frame, text_frame
from worker.generation import OnText, fit_prompt, generate, room
from worker.job import Request
from worker.joblog import logger
from worker.progress import Progress
from worker.slots import Slots, Use
from worker.stream import Sink

Endpoint = Callable[[Request, Sink, Progress], Awaitable[Any]]


class BlockingApi:
    """Answers blocking requests by a `Backend`."""

    def __init__(
        self,
        backend: Backend,
        slots: Slots,
        characters_dir: Path | None,
        *,
        may_load: bool = True,
    ) -> None:
        """characters_dir: where an operator's own characters are, beside the shipped ones.

        may_load: whether jobs may load and unload models.
        """
        self._backend = backend
        self._slots = slots
        self._changes = Changes(slots)
        self._may_load = may_load
        self._characters_dir = characters_dir
        self._reported: set[str] = set()
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

    async def _model(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The model's name, or what `action` asks for."""
        action = field(request.body, text, "", "action")
        if action == "":
            return {"result": await self._backend.model_name()}
        if action == "info":
            return {"result": await self._backend.info()}
        if action == "list":
            return {"result": ["None", *await self._backend.list_models()]}
        if action in ("load", "unload") and not self._may_load:
            raise EngineRefused(
                "loading and unloading is switched off on this worker (MODEL_ADMIN)", status=403
            )
        if action == "load":
            return await self._load(request.body)
        if action == "unload":
            return {"result": await self._changes.run(self._unload)}
        raise UnknownRoute(
            f"there is no action {str(action)[:50]!r}; send info, list, load, unload or no action"
        )

    async def _load(self, body: Mapping[str, Any]) -> Any:
        """Load a model once nobody uses the one that is loaded."""
        name, args = body.get("model_name"), field(body, mapping, {}, "args")
        if not isinstance(name, str) or not name:
            raise InvalidJob("model_name is missing; send one of the names that action list gives")

        async def load() -> Any:
            await self._backend.load(name, args)
            return await self._backend.info()

        return {"result": await self._changes.run(load)}

    async def _unload(self) -> Any:
        """Unload the model; what is true then."""
        await self._backend.unload()
        return await self._backend.info()

    async def _generate(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """Go on from a prompt."""
        prompt, parameters = prompt_of(request.body), parse_parameters(request.body)
        self._report_unsupported(parameters)

        async with self._slots.generation() as stop:
            progress.slot()
            await self._need_model()
            stops = parameters.stopping_strings
            completion = await fit_prompt(self._backend, prompt, parameters, stops)
            on_text = _text_frames(sink) if request.stream else None
            text = await generate(
                self._backend, completion, stop=stop, progress=progress, on_text=on_text
            )
        if request.stream:
            await sink.put(END_FRAME, 1)
        return {"results": [{"text": text}]}

    async def _chat(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """One more turn of a chat."""
        chat = parse_chat(request.body, self._character)
        parameters = parse_parameters(request.body)
        self._report_unsupported(parameters)
        history = start(chat)
        if not chat.nothing_to_do:
            async with self._slots.generation() as stop:
                progress.slot()
                await self._need_model()
                completion = await self._chat_completion(chat, parameters)
                on_text = _history_frames(sink, chat) if request.stream else None
                text = await generate(
                    self._backend, completion, stop=stop, progress=progress, on_text=on_text
                )
            history = update(chat, text)
        if request.stream:
            await sink.put(END_FRAME, 1)
        return {"results": [{"history": history}]}

    async def _chat_completion(self, chat: Chat, parameters: Parameters) -> Completion:
        """The chat's prompt without as many old turns as have no room."""

        async def build(dropped: int) -> str:
            return await build_prompt(chat, dropped, self._backend.render)

        async def count(prompt: str) -> int:
            return len(await self._backend.tokenize(prompt, add_bos=True))

        most = room(parameters, self._backend.context_length).prompt
        prompt = await fit(build, max_dropped(chat), most, count)
        stops = stopping_strings(chat, parameters.stopping_strings)
        return await fit_prompt(self._backend, prompt, parameters, stops)

    async def _token_count(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """Count the tokens of a prompt."""
        prompt = prompt_of(request.body)
        async with self._slots.use(Use.MODEL):
            await self._need_model()
            tokens = await self._backend.tokenize(prompt, add_bos=True)
        return {"results": [{"tokens": len(tokens)}]}

    async def _stop_stream(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """End every running generation of this worker; each returns what it has."""
        self._slots.stop_all()
        return {"results": "success"}

    async def _need_model(self) -> None:
        if await self._backend.model_name() is None:
            raise EngineDown("no model is loaded; load one with /model, action load")

    def _character(self, name: str | None) -> Character:
        return load_character(name, self._characters_dir)

    def _report_unsupported(self, parameters: Parameters) -> None:
        """Log each parameter that this engine has no counterpart for, once."""
        for name, reason in self._backend.unsupported(parameters).items():
            if name not in self._reported:
                self._reported.add(name)
                logger.warning("the parameter %s has no effect on this engine: %s", name, reason)


def _text_frames(sink: Sink) -> OnText:
    """Frames with what is new of a text."""
    sent = 0

    async def on_text(text: str) -> None:
        nonlocal sent
        if len(text) > sent:
            new, sent = text[sent:], len(text)
            await sink.put(text_frame(new), len(new))

    return on_text


def _history_frames(sink: Sink, chat: Chat) -> OnText:
    """Frames with the whole history."""
    before = sum(len(turn) for pair in chat.history.internal for turn in (*pair, "[['', '']],"))

    async def on_text(text: str) -> None:
        await sink.put(history_frame(update(chat, text)), 2 * (before + len(text)))

    return on_text
