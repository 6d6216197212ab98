"""Which of textgen's own routes a job may call, and how. Pure.

Routes from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/api/script.py.
What is not listed here is refused, so that a new route of the engine is closed until it was read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from enum import Enum
from typing import Any

from worker.errors import EngineRefused, InvalidJob, UnknownRoute
from worker.job import Request


class Kind(Enum):
    """How a route is run."""

    READ = "read"  # it uses no slot
    GENERATE = "generate"  # it holds a slot
    FORM = "form"  # it takes a multipart form, made of the JSON
    STOP = "stop"  # it ends what runs
    CHANGE = "change"  # it changes the model, and has the engine to itself


ROUTES: Mapping[tuple[str, str], Kind] = {
    ("POST", "/v1/completions"): Kind.GENERATE,
    ("POST", "/v1/chat/completions"): Kind.GENERATE,
    ("POST", "/v1/messages"): Kind.GENERATE,
    ("POST", "/v1/images/generations"): Kind.GENERATE,
    ("POST", "/v1/audio/transcriptions"): Kind.FORM,
    ("POST", "/v1/embeddings"): Kind.READ,
    ("POST", "/v1/moderations"): Kind.READ,
    ("GET", "/v1/models"): Kind.READ,
    ("GET", "/v1/billing/usage"): Kind.READ,
    ("GET", "/v1/internal/health"): Kind.READ,
    ("POST", "/v1/internal/encode"): Kind.READ,
    ("POST", "/v1/internal/decode"): Kind.READ,
    ("POST", "/v1/internal/token-count"): Kind.READ,
    ("POST", "/v1/internal/logits"): Kind.READ,
    ("POST", "/v1/internal/chat-prompt"): Kind.READ,
    ("POST", "/v1/internal/stop-generation"): Kind.STOP,
    ("GET", "/v1/internal/model/info"): Kind.READ,
    ("GET", "/v1/internal/model/list"): Kind.READ,
    ("POST", "/v1/internal/model/load"): Kind.CHANGE,
    ("POST", "/v1/internal/model/unload"): Kind.CHANGE,
}
_ONE_MODEL = "/v1/models/"
_FILE_SHAPE = 'send "file": {"name": "speech.wav", "base64": "..."}'


def kind_of(request: Request, *, admin: str) -> Kind:
    """How a request is run; admin is MODEL_ADMIN.

    Raises UnknownRoute for what is not open, InvalidJob for the wrong method, EngineRefused (403)
    for administration that is switched off.
    """
    method, path = request.method, request.path
    if method == "GET" and path.startswith(_ONE_MODEL):
        return Kind.READ
    kind = ROUTES.get((method, path))
    if kind is Kind.CHANGE and admin != "all":
        raise EngineRefused(f"{path} is switched off on this worker (MODEL_ADMIN)", status=403)
    if kind is not None:
        return kind
    other = {"GET": "POST", "POST": "GET"}[method]
    if (other, path) in ROUTES:
        raise InvalidJob(f"{path} takes {other}, not {method}")
    raise UnknownRoute(f"the engine has no route {path[:80]} that a job may call")


def check_body(request: Request) -> None:
    """Refuse what textgen answers with a status 500 and no reason; raises InvalidJob."""
    body = request.body
    if request.path == "/v1/completions" and body.get("prompt") is None and "messages" not in body:
        raise InvalidJob("prompt is missing; send a text")


def form_fields(body: Mapping[str, Any]) -> tuple[str, bytes, dict[str, str]]:
    """The file's name, its bytes and the other fields of a form; raises InvalidJob."""
    file = body.get("file")
    if not isinstance(file, dict) or not isinstance(file.get("base64"), str):
        raise InvalidJob(f"file is missing; {_FILE_SHAPE}")
    try:
        data = base64.b64decode(file["base64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidJob(f"file.base64 is not base64; {_FILE_SHAPE}") from error
    name = str(file.get("name") or "file").replace("\\", "/").rsplit("/", 1)[-1][:100]
    others = {key: value for key, value in body.items() if key != "file" and value is not None}
    if not all(isinstance(value, (str, int, float)) for value in others.values()):
        raise InvalidJob("the fields beside file must be texts or numbers")
    return name, data, {key: str(value) for key, value in others.items()}


def silent_failure(path: str, body: Mapping[str, Any], result: Any, context: int) -> str | None:
    """Find out an answer that is empty because the prompt has no room; the sentence, or None.

    Textgen answers 200 with an empty text then, and only its log says why.
    """
    if not isinstance(result, dict) or _text_of(result):
        return None
    usage = result.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    wanted = body.get("max_tokens") or body.get("max_completion_tokens") or 1
    if not isinstance(prompt, int) or not isinstance(wanted, int):
        return None
    if prompt >= context or (path != "/v1/completions" and prompt + wanted >= context):
        return (
            f"the prompt has {prompt} tokens and the context holds {context}, answer included; "
            "shorten the prompt or lower max_tokens"
        )
    return None


def _text_of(result: Mapping[str, Any]) -> bool:
    """Say whether an answer holds anything, be it of a shape that nobody knows."""
    choices = result.get("choices") or []
    if not isinstance(choices, list):
        return True
    return bool(result.get("content")) or any(map(_is_choice_of_text, choices))


def _is_choice_of_text(choice: Any) -> bool:
    message = choice.get("message") or {} if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return True
    said = (message.get(key) for key in ("content", "tool_calls", "reasoning_content"))
    return bool(choice.get("text")) or any(said)
