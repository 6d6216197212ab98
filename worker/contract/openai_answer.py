"""OpenAI's completion answers, whole and in events, for an engine that does not make them. Pure.

Shapes: https://platform.openai.com/docs/api-reference/completions and .../chat.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Form:
    """How the answers of one request look."""

    chat: bool
    model: str
    created: int
    answer_id: str

    @classmethod
    def new(cls, *, chat: bool, model: str) -> Form:
        """The form of an answer that begins now."""
        prefix = "chatcmpl" if chat else "cmpl"
        return cls(chat, model, int(time.time()), f"{prefix}-{uuid.uuid4().hex}")

    def whole(self, said: str, finish: str, usage: Mapping[str, int]) -> dict[str, Any]:
        """The whole answer."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": said}
        else:
            choice["text"] = said
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": dict(usage)}

    def first(self) -> list[str]:
        """The events before the first text."""
        if not self.chat:
            return []
        return [self._chunk({"delta": {"role": "assistant", "content": ""}})]

    def piece(self, said: str) -> str:
        """The event of some text."""
        return self._chunk({"delta": {"content": said}} if self.chat else {"text": said})

    def last(self, finish: str, usage: Mapping[str, int] | None) -> list[str]:
        """The events after the last text; usage only where it was asked for."""
        rest: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        events = [self._chunk({**rest, "finish_reason": finish})]
        if usage is not None:
            events.append(_event({**self._head(self._kind), "choices": [], "usage": dict(usage)}))
        return [*events, "data: [DONE]\n\n"]

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _chunk(self, choice: Mapping[str, Any]) -> str:
        head = {"index": 0, "finish_reason": None, "logprobs": None}
        return _event({**self._head(self._kind), "choices": [{**head, **choice}]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """OpenAI's count of tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def models(name: str | None) -> dict[str, Any]:
    """The answer of GET /v1/models."""
    loaded = [] if name is None else [model(name)]
    return {"object": "list", "data": loaded}


def model(name: str) -> dict[str, Any]:
    """One entry of it; the classic does not know how old a model is."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "user"}


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
