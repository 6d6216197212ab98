"""What the worker's extension inside textgen tells (webui_extension/script.py), read with care."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import EngineBroken


def state_path(nonce: str) -> str:
    """The route of the state."""
    return f"/v1/internal/worker/{nonce}/state"


def work_path(nonce: str) -> str:
    """The route that waits behind what llama-server computes."""
    return f"/v1/internal/worker/{nonce}/work"


def info_path(nonce: str) -> str:
    """The route of the args and settings."""
    return f"/v1/internal/worker/{nonce}/info"


def extra_flags_path(nonce: str) -> str:
    """The route that sets llama-server's extra flags for the next load."""
    return f"/v1/internal/worker/{nonce}/extra-flags"


def decode_path(nonce: str) -> str:
    """The route that makes text of tokens."""
    return f"/v1/internal/worker/{nonce}/decode"


@dataclass(frozen=True, slots=True)
class State:
    """What is loaded; the fields are those of the extension's `state_of`."""

    model: str | None
    loader: str
    loras: tuple[str, ...]
    context: int
    child_exit: int | None
    bos: int | None
    bos_text: str
    adds_bos: bool
    busy: int


def parse_state(answer: Any) -> State:
    """The state in the extension's answer; raises EngineBroken for anything else."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("loaded"), bool):
        raise EngineBroken("the engine does not tell its state; see the worker's log")
    name, context = answer.get("model"), answer.get("context")
    return State(
        model=str(name) if answer["loaded"] and name else None,
        loader=str(answer.get("loader") or ""),
        loras=tuple(map(str, answer.get("loras") or ())),
        context=context if isinstance(context, int) and context > 0 else 2048,
        child_exit=answer.get("child_exit"),
        bos=answer.get("bos"),
        bos_text=str(answer.get("bos_text") or ""),
        adds_bos=bool(answer.get("adds_bos")),
        busy=int(answer.get("busy") or 0),
    )
