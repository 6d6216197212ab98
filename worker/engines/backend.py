"""What the worker needs from an engine: the seam between the contract and the three engines.

`Backend` is for engines that do not speak the blocking API themselves (embedded, current): the
contract is translated to these few calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worker.contract.parameters import Parameters
from worker.slots import Stop


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: role is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One generation: the prompt's text or, where it was cut, its token ids; and the sampling."""

    prompt: str | Sequence[int]
    max_tokens: int
    parameters: Parameters
    stop: Sequence[str]


@dataclass(frozen=True, slots=True)
class Piece:
    """What the engine generated since the last piece. The last one has a `finish`.

    finish: "stop" (end of text or a stopping string), "length", or None while it goes on.
    """

    text: str
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Backend(Protocol):
    """An engine that the blocking API is translated to. Every call may raise a JobError."""

    @property
    def context_length(self) -> int:
        """Tokens that one request may use, prompt and answer together."""
        ...

    async def model_name(self) -> str | None:
        """Name of the loaded model, None when none is loaded."""
        ...

    async def info(self) -> dict[str, Any]:
        """The blocking API's `model_name`, `lora_names`, `shared.args`, `shared.settings`."""
        ...

    def unsupported(self, parameters: Parameters) -> Mapping[str, str]:
        """Parameters that the caller set and this engine has no counterpart for: name, reason."""
        ...

    async def list_models(self) -> list[str]:
        """Names of the models that can be loaded."""
        ...

    async def load(self, name: str, args: Mapping[str, Any]) -> None:
        """Unload what is loaded and load this model; EngineStartFailed with the cause."""
        ...

    async def unload(self) -> None:
        """Unload the model; nothing happens when none is loaded."""
        ...

    async def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """Token ids of a prompt, with or without the tokenizer's own first token."""
        ...

    async def render(self, messages: Sequence[Message], *, continue_last: bool) -> str:
        """The prompt of a chat in the model's own template, ready for the assistant's turn.

        continue_last: the last message is the start of the assistant's answer.
        """
        ...

    def complete(self, completion: Completion, stop: Stop) -> AsyncGenerator[Piece, None]:
        """Generate; closing the generator frees the engine's slot at once.

        A requested stop ends it without a last piece. An answer that breaks off raises
        EngineBroken.
        """
        ...
