"""The blocking API's needs on llama.cpp's own HTTP API (the embedded engine).

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from worker.assemble import ended_early, parse_event
from worker.client import EngineClient
from worker.contract import llama_cpp
from worker.contract.parameters import Parameters
from worker.engines.backend import Completion, Message, Piece
from worker.engines.classic_model import load_args
from worker.engines.loras import take_names
from worker.errors import EngineBroken
from worker.joblog import logger
from worker.slots import Stop

# The classic's names of what can be chosen for a load.
LOAD_ARGS = ("n_ctx", "threads", "n_gpu_layers")
_FINISH = {"eos": "stop", "word": "stop", "limit": "length"}


class Lifecycle(Protocol):
    """What the backend asks of the engine's process."""

    @property
    def model_name(self) -> str | None:
        """The loaded model, None when none is."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of one slot; it may change with each load."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is true of the engine, under the keys of `shared.args`."""
        ...

    def model_names(self) -> list[str]:
        """The models that can be loaded."""
        ...

    @property
    def loras(self) -> Sequence[str]:
        """The LoRAs on the loaded model."""
        ...

    def lora_names(self) -> list[str]:
        """The LoRAs that can be loaded."""
        ...

    def start_loras(self, name: str) -> Sequence[str]:
        """The LoRAs that a model has unless a load says otherwise."""
        ...

    async def load(self, name: str, args: Mapping[str, int], loras: Sequence[str]) -> None:
        """Load a model in place of the loaded one; raises EngineStartFailed or UnknownRoute.

        args: some of LOAD_ARGS, which take the place of the settings until the next load.
        loras: names.
        """
        ...

    async def load_loras(self, names: Sequence[str]) -> None:
        """Have these LoRAs and no others on the loaded model; raises JobError."""
        ...

    async def unload(self) -> None:
        """Unload the model."""
        ...


class LlamaBackend:
    """A `Backend` on llama.cpp's server."""

    def __init__(self, client: EngineClient, engine: Lifecycle) -> None:
        """Speak to the engine's server through the client."""
        self._client = client
        self._engine = engine
        self._reported: set[str] = set()

    @property
    def context_length(self) -> int:
        """Tokens of one slot."""
        return self._engine.context_length

    async def model_name(self) -> str | None:
        """Name of the loaded model."""
        return self._engine.model_name

    async def info(self) -> dict[str, Any]:
        """The model's name and what is true of this engine."""
        return {
            "model_name": self._engine.model_name,
            "lora_names": list(self._engine.loras),
            "shared.args": self._engine.describe(),
            "shared.settings": self._settings(),
        }

    def unsupported(self, parameters: Parameters) -> Mapping[str, str]:
        """What the caller set and llama.cpp can't do."""
        return {name: llama_cpp.UNSUPPORTED[name] for name in llama_cpp.unsupported(parameters)}

    async def list_models(self) -> list[str]:
        """Names of the models that can be loaded."""
        return self._engine.model_names()

    async def load(self, name: str, args: Mapping[str, Any]) -> None:
        """Load a model with those of the classic's args that mean something here.

        Raises InvalidJob for args that the classic does not know either.
        """
        loras, args = take_names(args, self._engine.start_loras(name))
        known = load_args(args, any_key=False, trust_remote_code=False)
        chosen = {key: known[key] for key in LOAD_ARGS if known.get(key)}
        ignored = sorted({key for key in known if key not in LOAD_ARGS} - self._reported)
        if ignored:
            self._reported.update(ignored)
            logger.warning("args without effect on this engine: %s", ", ".join(ignored))
        await self._engine.load(name, chosen, loras)

    async def list_loras(self) -> list[str]:
        """Names of the LoRAs that can be loaded."""
        return self._engine.lora_names()

    async def load_loras(self, names: Sequence[str]) -> None:
        """Have these LoRAs and no others on the loaded model."""
        await self._engine.load_loras(names)

    async def unload(self) -> None:
        """Unload the model."""
        await self._engine.unload()

    async def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """Token ids of a prompt."""
        body = {"content": text, "add_special": add_bos, "parse_special": True}
        answer = await self._client.json("POST", "/tokenize", body)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise EngineBroken("the engine counted no tokens; try again")
        return tokens

    async def render(self, messages: Sequence[Message], *, continue_last: bool) -> str:
        """The prompt in the model's own template; an assistant's last message is continued."""
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        body = {"messages": turns, "add_generation_prompt": not continue_last}
        answer = await self._client.json("POST", "/apply-template", body)
        prompt = answer.get("prompt") if isinstance(answer, dict) else None
        if not isinstance(prompt, str):
            raise EngineBroken("the engine made no prompt of the chat; try again")
        return prompt

    async def complete(self, completion: Completion, stop: Stop) -> AsyncGenerator[Piece, None]:
        """Generate by POST /completion."""
        text: list[str] = []
        body = llama_cpp.to_llama_cpp(completion)
        async with aclosing(self._client.events("/completion", body, stop)) as events:
            async for event in events:
                chunk = parse_event(event, lambda: "".join(text))
                content = chunk.get("content") or ""
                if not isinstance(content, str):
                    raise EngineBroken("the engine sent a text that is none; try again")
                text.append(content)
                if chunk.get("stop"):
                    yield _last(chunk, text[-1])
                    return
                yield Piece(text[-1])
        if not stop.requested:
            raise ended_early("".join(text))

    def _settings(self) -> dict[str, Any]:
        """The blocking API's defaults, as far as they mean something here."""
        return {
            "add_bos_token": True,
            "ban_eos_token": False,
            "character": "Assistant",
            "custom_stopping_strings": "",
            "instruction_template": "None",
            "max_new_tokens": 200,
            "max_new_tokens_max": self.context_length,
            "max_new_tokens_min": 1,
            "mode": "chat",
            "name1": "You",
            "preset": "None",
            "seed": -1,
            "skip_special_tokens": True,
            "truncation_length": min(2048, self.context_length),
            "truncation_length_max": self.context_length,
            "truncation_length_min": 1,
        }


def _last(chunk: Mapping[str, Any], text: str) -> Piece:
    """The last piece: why it ended, and how many tokens there were."""
    return Piece(
        text,
        finish=_FINISH.get(str(chunk.get("stop_type")), "stop"),
        prompt_tokens=chunk.get("tokens_evaluated"),
        completion_tokens=chunk.get("tokens_predicted"),
    )
