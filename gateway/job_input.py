"""A client's request -> the input of a job. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def blocking_input(
    method: str, endpoint: str, body: Mapping[str, Any], *, stream: bool = False
) -> dict[str, Any]:
    """A request to the blocking API; there only websockets stream, whatever the body says."""
    payload = {name: value for name, value in body.items() if name != "stream"}
    if stream:
        payload["stream"] = True
    return {"api": {"method": method, "endpoint": endpoint}, "payload": payload}


def openai_input(method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A request to /v1/*, as the platform's own OpenAI route makes it, which any worker takes.

    There a POST without a body can't be told from a GET: it names its method.
    """
    if method == "POST" and not body:
        return {"api": {"method": method, "endpoint": path}, "payload": {}}
    return {"openai_route": path, "openai_input": dict(body)} if body else {"openai_route": path}
