"""What both ports share: bodies, JSON answers, errors in each API's form, browsers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web

from gateway.runpod_api import MAX_RUN_BYTES, Busy
from worker.deadline import deadline
from worker.errors import InvalidJob, JobError, TooLarge, WorkerBug
from worker.joblog import logger

# How long a client may leave what it is sent unread.
WRITE_SECONDS = 60.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(routes: list[web.RouteDef], origin: str) -> web.Application:
    """An application with these routes, and what every request and answer passes."""
    app = web.Application(middlewares=[_errors, _guard(origin)], client_max_size=MAX_RUN_BYTES)
    app.add_routes(routes)

    async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Methods"] = "*"
        response.headers["Access-Control-Allow-Headers"] = "*, Authorization"
        response.headers["Cache-Control"] = "no-store"

    app.on_response_prepare.append(add_headers)
    return app


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, content_type="application/json"
    )


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body, {} for an empty one; its content type is not looked at.

    Raises InvalidJob or TooLarge.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(
            f"the request is over the {MAX_RUN_BYTES} bytes that RunPod takes"
        ) from error
    return parse_object(raw) if raw else {}


def parse_object(raw: str | bytes) -> dict[str, Any]:
    """A JSON object; raises InvalidJob for anything else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidJob("the request is not valid JSON") from error
    if not isinstance(value, dict):
        raise InvalidJob("the request must be a JSON object")
    return value


def patience() -> AbstractContextManager[None]:
    """Bound a write: a client that does not read is as good as gone."""
    return deadline(WRITE_SECONDS, ConnectionResetError("the client does not read"))


def openai_error(error: JobError) -> dict[str, Any]:
    """An error as OpenAI's API words it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    fields = {"message": str(error), "type": kind, "param": None, "code": error.status}
    return {"error": fields}


def _answer(request: web.Request, error: JobError) -> web.Response:
    """An error in the form of the API that was asked."""
    logger.warning("%s %s: %d %s", request.method, request.path, error.status, error)
    if request.path.startswith("/v1/"):
        response = json_answer(openai_error(error), error.status)
        # A failed generation is not run again: the openai package repeats a 5xx unless told
        # not to; see _should_retry in src/openai/_base_client.py of openai/openai-python.
        if not isinstance(error, Busy):
            response.headers["x-should-retry"] = "false"
    else:
        response = json_answer({"error": {"message": str(error)}}, error.status)
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn everything that can go wrong into an answer, once."""
    try:
        return await handler(request)
    except JobError as error:
        return _answer(request, error)
    except web.HTTPException as error:
        return _answer(
            request, JobError(_ROUTING.get(error.status, error.reason), status=error.status)
        )
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001  # the boundary: one request must not end the gateway
        logger.exception("a request failed")
        return _answer(request, WorkerBug("the gateway failed on this request; see its log"))


_ROUTING: Mapping[int, str] = {
    404: "there is no such path; the API is at /api/v1/ and /v1/",
    405: "the path does not take this method; send GET or POST as the API says",
}


def _guard(origin: str) -> Any:
    """Make the middleware that answers browsers: preflights, and pages that may not call."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Origin")
        if sent is not None and origin not in ("*", sent):
            raise JobError("this page may not use the gateway; see --origin", status=403)
        if request.method == "OPTIONS":
            return web.Response()
        return await handler(request)

    return guard
