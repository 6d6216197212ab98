"""GET /openapi.json and /job.schema.json: what can be asked here, for programs."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from emulator.job_schema import Schema, job_schema
from emulator.limits import Limits
from emulator.openapi import openapi
from emulator.web import Handler, json_answer


def routes(endpoint_id: str, limits: Limits) -> list[web.RouteDef]:
    """Both routes; like the page's files they need no key."""
    documents = {
        "/openapi.json": lambda: openapi(endpoint_id, limits),
        "/job.schema.json": job_schema,
    }
    return [web.get(path, _document(make)) for path, make in documents.items()]


def _document(make: Callable[[], Schema]) -> Handler:
    """Make a handler; any page may read what it answers, as tools for OpenAPI do."""

    async def answer(_: web.Request) -> web.Response:
        response = json_answer(make())
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    return answer
