"""The blocking API's needs on today's textgen (v4, OpenAI-compatible API).

Facts from https://github.com/oobabooga/text-generation-webui, textgen v4.9:
modules/api/completions.py, modules/text_generation.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from worker.assemble import DONE, ended_early, parse_event
from worker.client import EngineClient
from worker.contract import openai_textgen
from worker.contract.parameters import Parameters
from worker.engines.backend import Completion, Message, Piece
from worker.engines.textgen_host import Host
from worker.engines.textgen_models import TextgenModels
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    InvalidJob,
    JobError,
)
from worker.slots import Stop

# The engine must not cut a chat's prompt to its own idea of the context; the worker does it.
_NO_CUT = {"truncation_length": 1 << 30, "max_tokens": 1}


class TextgenBackend:
    """A `Backend` on textgen."""

    def __init__(self, client: EngineClient, host: Host) -> None:
        """Speak to the engine through the client; the host tells what is loaded."""
        self._client = client
        self._host = host
        self.models = TextgenModels(client, host)

    @property
    def context_length(self) -> int:
        """Tokens of one generation."""
        return self._host.state.context

    async def model_name(self) -> str | None:
        """Name of the loaded model, None when none is."""
        return self._host.state.model

    async def info(self) -> dict[str, Any]:
        """What the engine's own process tells of itself."""
        state, told = await self._host.refresh(), await self._host.info()
        return {
            "model_name": state.model,
            "lora_names": list(state.loras),
            "shared.args": {
                **told.get("args", {}),
                "user_data_dir": self._host.launch.user_data.name,
            },
            # Clients of the classic read both. The template is the model's own, unless a job names
            # one; textgen's own length is that of all slots together.
            "shared.settings": {
                "instruction_template": "None",
                **told.get("settings", {}),
                "truncation_length": state.context,
            },
        }

    def unsupported(self, parameters: Parameters) -> Mapping[str, str]:
        """What the caller set and this loader can't do."""
        loader = self._host.state.loader
        reasons = openai_textgen.unsupported_reasons(loader)
        return {name: reasons[name] for name in openai_textgen.unsupported(parameters, loader)}

    async def list_models(self) -> list[str]:
        """Names of the models that can be loaded."""
        return await self.models.list_models()

    async def load(self, name: str, args: Mapping[str, Any]) -> None:
        """Load a model, ready when it returns; see `TextgenModels.load`."""
        await self.models.load(name, args)

    async def unload(self) -> None:
        """Unload the model; nothing happens when none is loaded."""
        await self.models.unload()

    async def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """Token ids of a prompt.

        Textgen puts a first token before every prompt, also for a tokenizer that has one and does
        not add it by itself; it is taken off where the blocking API had none.
        """
        answer = await self._client.json("POST", "/v1/internal/encode", {"text": text})
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise EngineBroken("the engine counted no tokens; try again")
        state = self._host.state
        own = bool(state.bos_text) and text.startswith(state.bos_text)
        wanted = own or (add_bos and state.adds_bos)
        return tokens[1:] if tokens and not wanted and tokens[0] == state.bos else tokens

    async def render(self, messages: Sequence[Message], *, continue_last: bool) -> str:
        """The prompt in the model's own template; an assistant's last message is continued."""
        body = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "mode": "instruct",
            "continue_": continue_last,
            **_NO_CUT,
        }
        answer = await self._client.json("POST", "/v1/internal/chat-prompt", body)
        prompt = answer.get("prompt") if isinstance(answer, dict) else None
        if not isinstance(prompt, str):
            raise EngineBroken("the engine made no prompt of the chat; try again")
        return prompt

    async def complete(self, completion: Completion, stop: Stop) -> AsyncGenerator[Piece, None]:
        """Generate by POST /v1/completions."""
        state = self._host.state
        prompt = await self._text_of(completion.prompt)
        body = openai_textgen.to_textgen(completion, prompt=prompt, loader=state.loader)
        body["add_bos_token"] = body["add_bos_token"] and state.adds_bos
        body["stream_options"] = {"include_usage": True}
        text: list[str] = []
        finish: str | None = None
        usage: Mapping[str, Any] = {}
        done = False
        try:
            async with aclosing(self._client.events("/v1/completions", body, stop)) as events:
                async for event in events:
                    if event.data == DONE:
                        done = True
                        break
                    chunk = parse_event(event, lambda: "".join(text))
                    told = chunk.get("usage")
                    usage = told if isinstance(told, dict) else usage
                    for piece, reason in _choices(chunk):
                        finish = reason or finish
                        if piece:
                            text.append(piece)
                            yield Piece(piece)
        except JobError as error:
            raise await self.explain(error, "/v1/completions") from error
        if not done or finish is None:
            if stop.requested:
                return
            raise await self.explain(ended_early("".join(text)), "/v1/completions")
        await self._check_room(prompt, "".join(text), finish)
        yield Piece("", finish, usage.get("prompt_tokens"), usage.get("completion_tokens"))

    async def explain(self, error: JobError, path: str) -> JobError:
        """A better error for textgen's bare status 500 and for streams that break off.

        No model and a dead llama-server are the most likely causes, so they are looked for.
        """
        if isinstance(error, EngineRefused) and error.status < 500:
            return error
        try:
            state = await self._host.refresh()
        except JobError:
            return error
        if state.child_exit is not None:
            return EngineDown("the engine's llama-server has ended", detail=error.detail)
        if state.model is None:
            return EngineDown("no model is loaded; load one with /model, action load")
        partial = error.detail.get("partial") if isinstance(error.detail, dict) else None
        if isinstance(error, EngineRefused) or partial == "":
            return EngineBroken(
                f"the engine failed inside on {path}; check the payload, such as the name of a "
                "character, or see the worker's log",
                detail=error.detail,
            )
        return error

    async def _text_of(self, prompt: str | Sequence[int]) -> str:
        """The prompt as text: textgen streams no token ids."""
        if isinstance(prompt, str):
            return prompt
        body = {"tokens": list(prompt)}
        answer = await self._client.json("POST", self._host.decode_path, body)
        text = answer.get("text") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise EngineBroken("the engine made no text of the prompt's tokens; try again")
        return text

    async def _check_room(self, prompt: str, text: str, finish: str) -> None:
        """Find out an answer that is empty because the prompt is over-long; InvalidJob."""
        if text or finish != "length":
            return
        count = len(await self.tokenize(prompt, add_bos=True))
        if count >= self.context_length:
            raise InvalidJob(
                f"the prompt has {count} tokens and the context holds {self.context_length}; "
                "shorten the prompt or lower truncation_length"
            )


def _choices(chunk: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Text and finish reason of each choice in an event; raises EngineBroken for another shape."""
    choices = chunk.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise EngineBroken("the engine sent choices that make no sense; try again")
    found = [(choice.get("text") or "", choice.get("finish_reason")) for choice in choices]
    if not all(isinstance(text, str) for text, _ in found):
        raise EngineBroken("the engine sent a text that is none; try again")
    return [(text, str(reason) if reason else None) for text, reason in found]
