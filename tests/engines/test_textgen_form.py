"""A file that comes as base64 in a job's JSON, and goes to textgen as a form."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.engines.test_current_recordings import LOADED, Host
from worker.client import EngineClient
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
from worker.errors import EngineBroken, EngineRefused, InvalidJob
from worker.job import parse_job
from worker.progress import Progress
from worker.slots import Slots

PATH = "/v1/audio/transcriptions"
SOUND = bytes(range(256)) * 40
FILE = {"name": "../speech.wav", "base64": base64.b64encode(SOUND).decode()}


class Sink:
    async def put(self, event: Any, size: int) -> None:
        raise AssertionError(event)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def textgen(handler: Handler) -> AsyncIterator[Callable[[Any], Awaitable[Any]]]:
    """Ask the worker on an engine that answers its audio route so."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post(PATH, handler)
    async with TestServer(app) as server:
        client, host, slots = EngineClient(server.port or 0), Host(LOADED), Slots(1)
        forwarder = TextgenForwarder(client, slots, TextgenBackend(client, host), host)

        async def ask(payload: Any) -> Any:
            job = {"api": {"method": "POST", "endpoint": PATH}, "payload": payload}
            return await forwarder.answer(parse_job(job), Sink(), Progress())

        try:
            yield ask
        finally:
            assert slots.idle
            await client.close()


async def test_the_engine_gets_the_file_and_the_caller_the_answer() -> None:
    got: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        got.update(name=file.filename, data=file.file.read(), language=form["language"])
        return web.json_response({"text": "hello"})

    async with textgen(handler) as ask:
        assert {"text": "hello"} == await ask({"file": FILE, "language": "en"})
    assert {"name": "speech.wav", "data": SOUND, "language": "en"} == got


async def test_a_route_that_fails_is_told_in_one_sentence() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="Internal Server Error")

    async with textgen(handler) as ask:
        with pytest.raises(EngineBroken, match=r"works for no file.*use another endpoint for it"):
            await ask({"file": FILE})


async def test_what_the_engine_refuses_is_told_with_its_reason() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "no such language"}, status=400)

    async with textgen(handler) as ask:
        with pytest.raises(EngineRefused, match="no such language"):
            await ask({"file": FILE, "language": "xx"})


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({}, "file is missing; send"),
        ({"file": "speech.wav"}, "file is missing; send"),
        ({"file": {"base64": "***"}}, "file.base64 is not base64"),
        ({"file": FILE, "language": ["en"]}, "must be texts or numbers"),
    ],
)
async def test_a_file_that_is_none_is_refused_before_the_engine_is_asked(
    payload: dict[str, Any], says: str
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise AssertionError(request)

    async with textgen(handler) as ask:
        with pytest.raises(InvalidJob, match=says):
            await ask(payload)
