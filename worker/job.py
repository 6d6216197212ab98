"""A job's input -> Request, or one clear sentence on what is wrong with it. Pure.

Accepted shapes of `input`:
- {"api": {"method": "POST", "endpoint": "/generate"}, "payload": {...}}: the blocking API of
  text-generation-webui, or any path under /v1/;
- {"openai_route": "/v1/chat/completions", "openai_input": {...}}: what the platform makes of a
  call to /openai/v1/*; without a body it is a GET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.contract.fields import field, flag
from worker.errors import InvalidJob, UnknownRoute

BLOCKING_PREFIX = "/api/v1"
BLOCKING_METHODS: Mapping[str, tuple[str, ...]] = {
    "/model": ("GET", "POST"),
    "/generate": ("POST",),
    "/chat": ("POST",),
    "/token-count": ("POST",),
    "/stop-stream": ("POST",),
}
_STREAMED = ("/generate", "/chat")
_KNOWN = f"the endpoints are {', '.join(BLOCKING_METHODS)} and any path under /v1/"
# Nothing that could change the host or leave the path: no scheme, @, ?, #, %, \ or spaces.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._:/-]{1,512}")
_SHAPE = 'send {"api": {"method": "POST", "endpoint": "/generate"}, "payload": {"prompt": "..."}}'


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the engine.

    path: "/generate" and its four sisters when `blocking`, else a path that begins with /v1/.
    stream: the caller wants the answer while it is generated.
    """

    method: str
    path: str
    body: Mapping[str, Any]
    blocking: bool
    stream: bool


def parse_job(job_input: Any) -> Request:
    """Turn a job's input into a Request; raises InvalidJob or UnknownRoute."""
    if not isinstance(job_input, dict):
        raise InvalidJob(f"the job's input must be an object; {_SHAPE}")
    if "openai_route" in job_input and "api" not in job_input:
        body = _object(job_input.get("openai_input"), "openai_input")
        return _request("POST" if body else "GET", job_input["openai_route"], body)
    api = job_input.get("api")
    if not isinstance(api, dict):
        problem = "must be an object" if "api" in job_input else "is missing"
        raise InvalidJob(f"input.api {problem}; {_SHAPE}")
    body = _object(job_input.get("payload"), "payload")
    return _request(_method(api.get("method")), api.get("endpoint"), body)


def _request(method: str, endpoint: Any, body: Mapping[str, Any]) -> Request:
    """Put the parts together and check that the endpoint takes the method."""
    path, blocking = _route(endpoint)
    if blocking and method not in BLOCKING_METHODS[path]:
        raise InvalidJob(f"{path} takes {' or '.join(BLOCKING_METHODS[path])}, not {method}")
    stream = field(body, flag, False, "stream")
    if blocking and path not in _STREAMED:
        stream = False
    return Request(method, path, body, blocking, stream)


def _method(method: Any) -> str:
    """GET or POST, given in any case."""
    if isinstance(method, str) and method.upper() in ("GET", "POST"):
        return method.upper()
    raise InvalidJob('input.api.method must be "GET" or "POST"')


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """A JSON object; absent or null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidJob(f"{name} must be an object")
    return value


def _route(endpoint: Any) -> tuple[str, bool]:
    """The endpoint's path, and whether it belongs to the blocking API."""
    if not isinstance(endpoint, str) or not endpoint.strip("/ "):
        raise InvalidJob(f"the endpoint is missing or not a string; {_KNOWN}")
    path = "/" + endpoint.removeprefix("/").removesuffix("/")
    if not _PLAIN_PATH.fullmatch(path) or not {"", ".", ".."}.isdisjoint(path.split("/")[1:]):
        raise InvalidJob(
            "the endpoint must be a plain path such as /generate: no host, scheme, query or '..'"
        )
    if path.startswith("/v1/"):
        return path, False
    name = path.removeprefix(BLOCKING_PREFIX)
    if name in BLOCKING_METHODS:
        return name, True
    raise UnknownRoute(f"there is no endpoint {path[:80]}; {_KNOWN}")
