"""An engine's plain answer -> its JSON, or the one error that it is. Pure."""

from __future__ import annotations

import json
from typing import Any

from worker.errors import EngineBroken, EngineDown, EngineRefused
from worker.plain import plain, redacted

_BUSY_STATUSES = (502, 503, 504)


def text_of(raw: bytes) -> str:
    """The text of a body; of one that is no UTF-8 something that is no JSON."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}"


def parse_answer(status: int, text: str) -> Any:
    """The JSON of an answer; raises the error that it is."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    if status >= 400:
        raise _refused(status, answer)
    if status >= 300:
        raise EngineBroken("the engine tried to redirect the request; nothing was followed")
    if isinstance(answer, dict) and answer.get("error"):
        raise _refused(500, answer)
    if answer is None and text.strip() != "null":
        kind = "something that is not JSON" if text.strip() else "an empty answer"
        raise EngineBroken(f"the engine sent {kind}; try again, or see the worker's log")
    return answer


def _refused(status: int, answer: Any) -> EngineRefused | EngineDown:
    """The engine's own error, in one sentence, with its object as the detail."""
    message = _message(answer)
    if status in _BUSY_STATUSES:
        return EngineDown(f"the engine is not ready ({plain(message) or status}); try again")
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        message = (
            f"the prompt has {error.get('n_prompt_tokens')} tokens and the context holds "
            f"{error.get('n_ctx')}; shorten the prompt"
        )
    sentence = (
        f"the engine refused the request: {plain(message)}"
        if message
        else (f"the engine answered with status {status} and no reason; check endpoint and payload")
    )
    return EngineRefused(sentence, status=status, detail=redacted(answer))


def _message(answer: Any) -> str:
    """The sentence in an engine's error object, "" when there is none."""
    if not isinstance(answer, dict):
        return ""
    error = answer.get("error", answer.get("detail", answer.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    if isinstance(error, list):
        error = "; ".join(_validation(item) for item in error)
    return error if isinstance(error, str) else ""


def _validation(item: Any) -> str:
    """One entry of a 422's detail list: where and what."""
    if not isinstance(item, dict):
        return ""
    place = item.get("loc")
    parts = place if isinstance(place, list) else []
    where = ".".join(str(part) for part in parts if part != "body")
    return f"{where}: {item.get('msg', 'is wrong')}"
