"""A stand-in for llama.cpp's HTTP API: plausible answers, the same ones for the same request. Pure.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONTEXT = 2048
_MOST_WORDS = 64
_NOT_FOUND = {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}


@dataclass(frozen=True, slots=True)
class Answer:
    """JSON with a status, or events: the text of each, blank line included."""

    body: Any = None
    status: int = 200
    events: tuple[str, ...] | None = None


def answer(method: str, path: str, body: Any, *, slots: int = 1) -> Answer:
    """Answer one request; `body` is its parsed JSON, None without one."""
    if method == "GET":
        return _get(path, slots)
    if not isinstance(body, dict):
        return Answer({"error": {"message": "the body must be an object"}}, 400)
    if path == "/tokenize":
        return Answer({"tokens": list(range(len(_text(body.get("content")).split()) + 1))})
    if path == "/apply-template":
        return Answer({"prompt": json.dumps(body.get("messages"))})
    stream = _STREAMS.get(path)
    if stream is None:
        return Answer(_NOT_FOUND, 404)
    if not body.get("stream"):
        return Answer({"content": " ", "stop": True})
    return Answer(events=tuple(stream(words(body), len(_text(body)))))


def words(body: Mapping[str, Any]) -> list[str]:
    """The words that are generated for a body: chosen by its prompt, as many as it asks for."""
    count = next((body[name] for name in _COUNTS if isinstance(body.get(name), int)), 8)
    prompt = body.get("prompt", body.get("messages", body.get("input")))
    digest = hashlib.sha256(_text(prompt).encode()).hexdigest()
    return [f" w{digest[index]}" for index in range(max(0, min(count, _MOST_WORDS)))]


_COUNTS = ("n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens")


def _get(path: str, slots: int) -> Answer:
    """What an engine tells of itself."""
    known: dict[str, Any] = {
        "/health": {"status": "ok"},
        "/slots": [{"id": slot, "is_processing": False, "n_ctx": CONTEXT} for slot in range(slots)],
        "/v1/models": {"object": "list", "data": [{"id": "stand-in", "object": "model"}]},
    }
    return Answer(known[path]) if path in known else Answer(_NOT_FOUND, 404)


def _text(value: Any) -> str:
    """A text as it is, anything else as its JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def event(data: Any, name: str = "") -> str:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"


def _completion(generated: list[str], prompt: int) -> Iterator[str]:
    for word in generated:
        yield event({"content": word, "stop": False})
    count = {"tokens_predicted": len(generated), "tokens_evaluated": prompt}
    yield event({"content": "", "stop": True, "stop_type": "limit", **count})


def _choices(kind: str, generated: list[str], prompt: int) -> Iterator[str]:
    head = {"id": "c1", "object": kind, "created": 1, "model": "stand-in"}
    for word in (*generated, None):
        part: dict[str, Any] = {"text": word or ""}
        if kind.startswith("chat"):
            part = {"delta": {"content": word} if word else {}}
        choice = {"index": 0, "finish_reason": None if word else "length", **part}
        yield event({**head, "choices": [choice]})
    usage = {"prompt_tokens": prompt, "completion_tokens": len(generated)}
    yield event({**head, "choices": [], "usage": usage})
    yield event("[DONE]")


def _chat(generated: list[str], prompt: int) -> Iterator[str]:
    return _choices("chat.completion.chunk", generated, prompt)


def _text_completion(generated: list[str], prompt: int) -> Iterator[str]:
    return _choices("text_completion", generated, prompt)


def _response(generated: list[str], prompt: int) -> Iterator[str]:
    for word in generated:
        yield event({"type": "response.output_text.delta", "delta": word})
    content = [{"type": "output_text", "text": "".join(generated)}]
    response = {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": content}],
        "usage": {"input_tokens": prompt, "output_tokens": len(generated)},
    }
    yield event({"type": "response.completed", "response": response}, "response.completed")


def _message(generated: list[str], prompt: int) -> Iterator[str]:
    start = {"type": "message", "role": "assistant", "usage": {"input_tokens": prompt}}
    yield event({"type": "message_start", "message": start})
    block = {"type": "text", "text": ""}
    yield event({"type": "content_block_start", "index": 0, "content_block": block})
    for word in generated:
        delta = {"type": "text_delta", "text": word}
        yield event({"type": "content_block_delta", "index": 0, "delta": delta})
    usage = {"output_tokens": len(generated)}
    yield event({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": usage})
    yield event({"type": "message_stop"})


_STREAMS = {
    "/completion": _completion,
    "/v1/chat/completions": _chat,
    "/v1/completions": _text_completion,
    "/v1/responses": _response,
    "/v1/messages": _message,
}
