"""OpenAI's routes on the classic: translated where the blocking API can do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.contract import openai_answer, openai_completion
from worker.contract.fields import field, text
from worker.contract.openai_answer import Form
from worker.contract.openai_completion import Asked
from worker.engines.classic_api import ClassicApi
from worker.engines.classic_generate import ClassicGenerator, Generated
from worker.engines.classic_models import ClassicModels
from worker.engines.classic_request import Prepared, Preparer
from worker.engines.classic_stream import Frame
from worker.errors import UnknownRoute
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots
from worker.stream import Sink

_MODELS = "/v1/models"
_COMPLETIONS = "/v1/completions"
_CHAT = "/v1/chat/completions"
_DEFAULT_CONTEXT = 2048
# What the classic's own /chat takes when neither the job nor the model says which.
_DEFAULT_TEMPLATE = "Vicuna-v1.1"


class OpenAiFromBlocking:
    """Answers /v1/models, /v1/completions and /v1/chat/completions."""

    def __init__(
        self,
        slots: Slots,
        *,
        blocking: ClassicApi,
        models: ClassicModels,
        generator: ClassicGenerator,
        preparer: Preparer,
    ) -> None:
        self._blocking = blocking
        self._models = models
        self._generator = generator
        self._slots = slots
        self._preparer = preparer

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The answer in OpenAI's shape; for a stream every event goes to the sink as text."""
        if request.method == "GET" and request.path == _MODELS:
            return openai_answer.models(self._models.name)
        if request.method == "POST" and request.path in (_COMPLETIONS, _CHAT):
            return await self._complete(request, sink, progress)
        raise UnknownRoute(
            f"this engine has no {request.method} {request.path[:80]}; it has GET {_MODELS}, "
            f"POST {_COMPLETIONS}, POST {_CHAT} and the blocking API"
        )

    async def _complete(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """One completion, of a text or of a chat."""
        chat = request.path == _CHAT
        read = (
            openai_completion.parse_chat_completion if chat else openai_completion.parse_completion
        )
        asked = read(request.body)
        # Refused before it waits for the slot.
        checked = self._preparer.generate({"prompt": "", **asked.sampling})
        async with self._slots.generation() as stop:
            progress.slot()
            form = Form.new(chat=chat, model=self._models.need())
            job = await self._job(request.body, asked, checked)
            echo = job.prepared.body["prompt"] if asked.echo else ""
            out = _Out(form, sink if request.stream else None, echo)
            await out.begin()
            generated = await self._generator.generate(
                job.prepared,
                stop=stop,
                progress=progress,
                on_frame=out.on_frame if request.stream else None,
            )
            tokens = await self._tokens(generated)
        usage = openai_answer.usage_of(job.prompt_tokens, tokens)
        finish = "stop" if stop.requested or tokens < job.max_tokens else "length"
        await out.end(finish, usage if asked.include_usage else None)
        return form.whole(out.all_of(generated.value), finish, usage)

    async def _job(self, body: Mapping[str, Any], asked: Asked, checked: Prepared) -> _Job:
        """The /generate job that says the same."""
        settings = (await self._models.info()).get("shared.settings") or {}
        prompt, stops = asked.prompt, list(asked.stop)
        if prompt is None:
            prompt, stops = openai_completion.chat_prompt(asked, self._template(body, settings))
        stops += checked.parameters.stopping_strings
        tokens = await self._blocking.count(prompt)
        context = settings.get("truncation_length")
        context = context if isinstance(context, int) and context > 0 else _DEFAULT_CONTEXT
        limit = openai_completion.max_tokens(asked, tokens, context)
        # With stopping strings the blocking API streams inside, and holds back what streams do.
        more = self._generator.held_back() if stops else 0
        sent = {
            **checked.body,
            "prompt": prompt,
            "max_new_tokens": limit + more,
            "truncation_length": context + more,
            "stopping_strings": stops,
        }
        return _Job(self._preparer.generate(sent), tokens, limit)

    def _template(self, body: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """The instruction template of the job, or of the model as the classic found it."""
        own = settings.get("instruction_template") or _DEFAULT_TEMPLATE
        own = _DEFAULT_TEMPLATE if own == "None" else own
        named = field(body, text, own, "instruction_template")
        return self._preparer.files.template(named)

    async def _tokens(self, generated: Generated) -> int:
        """How many tokens were generated, counted again where the engine did not say."""
        if generated.tokens is not None:
            return generated.tokens
        return await self._blocking.count(generated.value) if generated.value else 0


@dataclass(frozen=True, slots=True)
class _Job:
    """A completion as a /generate job; its prompt's tokens, and how many it may generate."""

    prepared: Prepared
    prompt_tokens: int
    max_tokens: int


class _Out:
    """What goes out of one answer, as events where they are wanted."""

    def __init__(self, form: Form, sink: Sink | None, echo: str) -> None:
        self._form = form
        self._sink = sink
        self._echo = echo
        self._begun = False

    async def begin(self) -> None:
        """Send what comes before the first text."""
        for event in self._form.first():
            await self._put(event)
        if self._echo:
            await self._put(self._form.piece(self._echo))

    async def on_frame(self, frame: Frame) -> None:
        """Send some text; a chat's begins without the spaces that follow its prompt."""
        said = frame.data["text"]
        if self._form.chat and not self._begun:
            said = said.lstrip(" ")
        if said:
            self._begun = True
            await self._put(self._form.piece(said))

    async def end(self, finish: str, usage: Mapping[str, int] | None) -> None:
        """Send what comes after the last text."""
        for event in self._form.last(finish, usage):
            await self._put(event)

    def all_of(self, generated: str) -> str:
        """The whole text."""
        return self._echo + (generated.lstrip(" ") if self._form.chat else generated)

    async def _put(self, event: str) -> None:
        if self._sink is not None:
            await self._sink.put(event, len(event.encode()))
