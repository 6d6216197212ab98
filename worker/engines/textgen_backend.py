"""The blocking API's needs on today's textgen (v4, OpenAI-compatible API).

Facts from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/api/models.py,
modules/api/completions.py, modules/text_generation.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from worker.assemble import DONE, ended_early, parse_event
from worker.client import EngineClient
from worker.contract import openai_textgen
from worker.contract.parameters import Parameters
from worker.engines.backend import Completion, Message, Piece
from worker.engines.current_launch import LLAMA_CPP, LORA_LOADERS, Launch, loader_of, with_loras
from worker.engines.loras import take_names
from worker.engines.textgen_load import LoadedWith, load_args, without_the_classics
from worker.engines.textgen_state import State
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    EngineStartFailed,
    InvalidJob,
    JobError,
    UnknownRoute,
)
from worker.joblog import logger
from worker.settings import Settings
from worker.slots import Stop

# The engine must not cut a chat's prompt to its own idea of the context; the worker does it.
_NO_CUT = {"truncation_length": 1 << 30, "max_tokens": 1}


class Host(Protocol):
    """What the backend asks of the engine's process."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""
        ...

    @property
    def launch(self) -> Launch:
        """How it was started."""
        ...

    @property
    def state(self) -> State:
        """What is loaded, as far as is known."""
        ...

    loaded_with: LoadedWith
    """What the last load asked for."""

    @property
    def extra_flags_path(self) -> str:
        """Its extension's route that sets llama-server's extra flags for the next load."""
        ...

    @property
    def decode_path(self) -> str:
        """Its extension's route that makes text of tokens, special ones too."""
        ...

    async def refresh(self) -> State:
        """Ask what is loaded."""
        ...

    async def info(self) -> Mapping[str, Any]:
        """Its args and settings."""
        ...

    def load_fault(self) -> str:
        """Why the last load failed."""
        ...


class TextgenBackend:
    """A `Backend` on textgen."""

    def __init__(self, client: EngineClient, host: Host) -> None:
        """Speak to the engine through the client; the host tells what is loaded."""
        self._client = client
        self._host = host

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
        return await self._names("/v1/internal/model/list", "model_names")

    async def list_loras(self) -> list[str]:
        """Names of the LoRAs that can be loaded with the loader of the loaded model."""
        gguf = self._host.state.loader == LLAMA_CPP
        return sorted(self._host.launch.loras.known(gguf=gguf))

    async def load(
        self,
        name: str,
        args: Mapping[str, Any],
        template: Mapping[str, str] | None = None,
    ) -> None:
        """Load a model, ready when it returns: the engine's "OK" alone says nothing.

        args.lora: LoRAs for it, in place of LORA's. template: as `read_template` gives it.
        Raises UnknownRoute for a name that there is not and InvalidJob for args that may not be
        set (nothing changes then), or EngineStartFailed: no model is loaded after that.
        """
        try:
            await self._load(name, args, template or {})
        except EngineStartFailed as error:
            raise EngineStartFailed(f"{error}; no model is loaded now") from error

    async def unload(self) -> None:
        """Unload the model; nothing happens when none is loaded."""
        await self._client.json("POST", "/v1/internal/model/unload", {})
        if (await self._host.refresh()).model is not None:
            raise EngineBroken("the engine did not unload the model; see the worker's log")

    async def load_loras(self, names: Sequence[str]) -> None:
        """Have these LoRAs and no others on the model; raises JobError.

        When it fails, the model is loaded as it was before: textgen may keep a LoRA then that it
        does not name.
        """
        state, was = self._host.state, self._host.loaded_with
        if state.model is None:
            raise EngineDown("no model is loaded; load one with /model, action load")
        self._lora_paths(names, state.loader)
        try:
            if state.loader == LLAMA_CPP:
                await self._load(state.model, {**was.args, "lora": list(names)}, was.template)
            else:
                await self._put_loras(names)
        except EngineStartFailed:
            await self.load(state.model, {**was.args, "lora": list(state.loras)}, was.template)
            raise

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

    async def _load(self, name: str, args: Mapping[str, Any], template: Mapping[str, str]) -> None:
        """See `load`."""
        names = await self.list_models()
        if name not in names:
            raise UnknownRoute(f"there is no such model; there are: {', '.join(names)[:400]}")
        settings, launch = self._host.settings, self._host.launch
        loader = loader_of(launch.model_dir / name, settings.engine_loader)
        loras, others = take_names(args, launch.loras.start if name == launch.model else ())
        if not settings.engine_load_any_args:
            others, ignored = without_the_classics(others)
            if ignored:
                logger.warning("args without effect on this engine: %s", ", ".join(ignored))
        checked = load_args(others, launch, loader, allow_any=settings.engine_load_any_args)
        body = {"model_name": name, "args": checked, **template}
        paths = self._lora_paths(loras, loader)
        try:
            await asyncio.wait_for(
                self._loaded(name, body, loader, paths), timeout=settings.engine_start_timeout
            )
        except asyncio.TimeoutError:
            raise EngineStartFailed(
                f"the model {name} was not loaded within {settings.engine_start_timeout:g} seconds"
            ) from None
        self._host.loaded_with = LoadedWith(others, template)

    def _lora_paths(self, names: Sequence[str], loader: str) -> list[Path]:
        """Where these LoRAs are; raises UnknownRoute, or InvalidJob for a loader without any."""
        if names and loader not in LORA_LOADERS:
            raise InvalidJob(
                f"LoRAs can't be loaded with {loader}; {' and '.join(LORA_LOADERS)} take them"
            )
        return self._host.launch.loras.paths(names, gguf=loader == LLAMA_CPP)

    async def _loaded(
        self, name: str, body: Mapping[str, Any], loader: str, loras: Sequence[Path]
    ) -> None:
        """Load, and believe it only when a token came."""
        if loader == LLAMA_CPP:
            flags = with_loras(self._host.launch.extra_flags, loras)
            await self._client.json("POST", self._host.extra_flags_path, {"extra_flags": flags})
        if not await self._ok("/v1/internal/model/load", body) or self._host.state.model != name:
            raise EngineStartFailed(
                f"the model {Path(name).name} could not be loaded: {self._host.load_fault()}"
            )
        try:
            if loras and loader != LLAMA_CPP:
                await self._put_loras([path.name for path in loras])
        except EngineStartFailed:
            await self.unload()
            raise
        await self._first_token()

    async def _put_loras(self, names: Sequence[str]) -> None:
        """Have the Transformers loader put LoRAs on the loaded model.

        All others are taken off first: it would name both, and add nothing.
        """
        done = await self._ok("/v1/internal/lora/unload", {})
        if done and names:
            done = await self._ok("/v1/internal/lora/load", {"lora_names": list(names)})
        if not done or list(self._host.state.loras) != list(names):
            raise EngineStartFailed(f"the LoRAs could not be loaded: {self._host.load_fault()}")
        await self._first_token()

    async def _first_token(self) -> None:
        """Generate one token; raises JobError."""
        first = {"prompt": "1", "max_tokens": 1, "temperature": 0, "stream": False}
        await self._client.json("POST", "/v1/completions", first)

    async def _ok(self, path: str, body: Mapping[str, Any]) -> bool:
        """Ask for a change; whether the engine did not refuse it. What is loaded is known then."""
        try:
            await self._client.json("POST", path, body)
        except EngineRefused as error:
            if error.status == 401:
                raise
            return False
        finally:
            await self._host.refresh()
        return True

    async def _names(self, path: str, key: str) -> list[str]:
        """A list of names that the engine gives."""
        answer = await self._client.json("GET", path)
        names = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(names, list):
            raise EngineBroken("the engine gave no list of names; try again")
        return [str(name) for name in names]

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
