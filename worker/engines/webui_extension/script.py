"""An extension of text-generation-webui (current) that tells its worker what its API does not.

It runs inside the webui, is loaded before the API starts, and needs nothing but the webui. Its
routes lie under a path that only the worker knows, so that an answer also proves which process it
comes from:

- GET /v1/internal/worker/<nonce>/state: whether a model is really loaded, cheap enough to poll;
- GET /v1/internal/worker/<nonce>/work: an answer of the llama-server's, which has to wait behind
  what it computes; without one an answer of the webui's;
- GET /v1/internal/worker/<nonce>/info: the webui's args and settings, without secrets;
- POST /v1/internal/worker/<nonce>/decode: tokens to text, special ones too (the API drops them);
- POST /v1/internal/worker/<nonce>/extra-flags: llama-server's extra flags for the next load, which
  the API does not let anybody set: its LoRAs are among them.

Facts from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/shared.py,
modules/models.py, modules/llama_cpp_server.py.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

NONCE_VARIABLE = "WORKER_STATE_NONCE"
_SECRET = re.compile(
    r"(^|_)(api|admin|access|secret)_?key|password|secret|auth|(hf|access|api)_token|keyfile|"
    r"certfile|mcp_servers|public_api_id|extra_flags"
)
# Longer than the worker waits: it is the one that judges.
_ASKED_SECONDS = 1800.0
_bos: dict[int, tuple[int | None, str, bool]] = {}


def setup() -> None:
    """Add the routes to the webui's API; the webui calls this when it loads the extension."""
    # They are the webui's, not the worker's.
    from modules import models, shared  # type: ignore[import-not-found]  # noqa: PLC0415
    from modules.api.script import app  # type: ignore[import-not-found]  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415

    async def state(_request: Any) -> Any:
        return JSONResponse(state_of(shared, models))

    async def work(_request: Any) -> Any:
        return JSONResponse(await asyncio.to_thread(asked, shared.model))

    async def info(_request: Any) -> Any:
        return JSONResponse(info_of(shared))

    async def decode(request: Any) -> Any:
        tokens = (await request.json())["tokens"]
        return JSONResponse({"text": shared.tokenizer.decode(tokens, skip_special_tokens=False)})

    async def extra_flags(request: Any) -> Any:
        set_extra_flags(shared, (await request.json())["extra_flags"])
        return JSONResponse("OK")

    base = f"/v1/internal/worker/{os.environ[NONCE_VARIABLE]}"
    app.add_route(f"{base}/state", state, methods=["GET"], include_in_schema=False)
    app.add_route(f"{base}/work", work, methods=["GET"], include_in_schema=False)
    app.add_route(f"{base}/info", info, methods=["GET"], include_in_schema=False)
    app.add_route(f"{base}/extra-flags", extra_flags, methods=["POST"], include_in_schema=False)
    app.add_route(f"{base}/decode", decode, methods=["POST"], include_in_schema=False)


def asked(model: Any) -> str:
    """Wait for an answer of the llama-server, whatever it is; no other model is asked.

    https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md: GET /slots. It is
    answered by the loop that computes, or refused by it.
    """
    port = getattr(model, "port", None)
    if type(model).__name__ == "LlamaServer" and port is not None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=_ASKED_SECONDS)) as connection:
            connection.request("GET", "/slots")
            connection.getresponse()
    return "OK"


def state_of(shared: Any, models: Any) -> dict[str, Any]:
    """What is loaded now.

    child_exit: exit code of a llama-server that should live, None while it does or without one.
    context: tokens of one generation. bos, bos_text: id and text of the tokenizer's first
    token, None and "" when it has none; adds_bos: it adds that by itself. busy: how many
    generations run.
    """
    model = shared.model
    child = getattr(model, "process", None) if type(model).__name__ == "LlamaServer" else None
    exit_code = None if child is None else child.poll()
    loaded = model is not None and exit_code is None
    bos, bos_text, adds_bos = _bos_of(shared) if loaded else (None, "", False)
    return {
        "loaded": loaded,
        "model": shared.model_name if loaded else None,
        "loader": shared.args.loader,
        "loras": list(shared.lora_names) if child is None else loras_of(child.args),
        "context": getattr(model, "n_ctx", None) or shared.settings["truncation_length"],
        "child": None if child is None else child.pid,
        "child_exit": exit_code,
        "bos": bos,
        "bos_text": bos_text,
        "adds_bos": adds_bos,
        "busy": getattr(models, "active_generation_count", 0),
    }


def loras_of(words: list[Any]) -> list[str]:
    """The names of the LoRAs on the command line of a llama-server."""
    texts = list(map(str, words))
    pairs = itertools.pairwise(texts)
    return [Path(value).stem for flag, value in pairs if flag == "--lora"]


def set_extra_flags(shared: Any, flags: str) -> None:
    """Set the flags where they are, and where a load takes them from again."""
    shared.args.extra_flags = shared.original_args.extra_flags = flags


def info_of(shared: Any) -> dict[str, Any]:
    """The webui's args and settings as JSON, without secrets and with no absolute path."""
    return {"args": _public(vars(shared.args)), "settings": _public(shared.settings)}


def _bos_of(shared: Any) -> tuple[int | None, str, bool]:
    """Look at the tokenizer once for each loaded model."""
    key = id(shared.model)
    if key not in _bos:
        _bos.clear()
        _bos[key] = _read_bos(shared)
    return _bos[key]


def _read_bos(shared: Any) -> tuple[int | None, str, bool]:
    """The first token's id and text, and whether the tokenizer adds it when nobody asks."""
    tokenizer = shared.tokenizer
    text = getattr(tokenizer, "bos_token", None) or ""
    if type(shared.model).__name__ == "LlamaServer":
        ids = tokenizer.encode("a", add_bos_token=True)
        added = len(ids) > len(tokenizer.encode("a", add_bos_token=False))
        return (ids[0] if added else None), text, True
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None or not callable(tokenizer):
        return bos, text, True
    ids = tokenizer("a")["input_ids"]
    return bos, text, bool(ids) and ids[0] == bos


def _public(values: dict[str, Any]) -> dict[str, Any]:
    """The values that anybody may see."""
    return {key: _plain(value) for key, value in values.items() if not _SECRET.search(key)}


def _plain(value: Any) -> Any:
    """A value as JSON; an absolute path is shown within the checkout, or by its last part."""
    if isinstance(value, (str, Path)):
        text = str(value)
        if not os.path.isabs(text) or "\n" in text:  # noqa: PTH117 - most are no paths
            return text
        inside = os.path.relpath(text)
        return os.path.basename(text) if inside.startswith("..") else inside  # noqa: PTH119 - as above
    if isinstance(value, dict):
        return _public({str(key): item for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
