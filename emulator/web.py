"""What all routes share: keys, rates, faults, bounded bodies, JSON answers."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from emulator.errors import Refused
from emulator.faults import Faults
from emulator.rates import Rates

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Observer = Callable[[str, web.Request], None]
Problem = Callable[[Refused], web.Response]


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON. ASCII only, so half a surrogate pair passes as the escape it came as."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, content_type="application/json"
    )


def problem(refused: Refused) -> web.Response:
    """Answer {"error": sentence}."""
    return json_answer({"error": refused.message}, refused.status)


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read a request's body; Refused (400, as the platform answers) when it is over the limit."""
    too_large = Refused(400, f"the body is over the limit of {limit} bytes")
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large from error
    if len(raw) > limit:
        raise too_large
    return raw


def hung_up(request: web.Request) -> bool:
    """Tell whether whoever asked is gone."""
    return request.transport is None or request.transport.is_closing()


async def deliver(
    request: web.Request, response: web.Response, undo: Callable[[], None]
) -> web.StreamResponse:
    """Send an answer that must not get lost: `undo` is called when nobody is there to read it."""
    delivered = False
    try:
        if not hung_up(request):
            await response.prepare(request)
            await response.write_eof()
            delivered = True
    finally:
        if not delivered:
            undo()
    return response


def _no_observer(_: str, __: web.Request) -> None:
    """Observe nothing."""


@dataclass(slots=True, kw_only=True)
class Gate:
    """What a request passes before and after its handler.

    api_key: clients send it (with or without "Bearer "), None lets everybody in; worker_key:
    workers send it; observer: called with the operation and the request, for tests.
    """

    worker_key: str
    api_key: str | None = None
    rates: Rates | None = None
    faults: Faults = field(default_factory=Faults)
    observer: Observer = _no_observer

    def client(self, operation: str, handler: Handler, problem: Problem = problem) -> Handler:
        """Make a client's route of a handler; `problem` renders what is refused."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._check_client(request)
                if self.rates is None:
                    return await self._run(operation, handler, request)
                self.rates.enter(operation)
                try:
                    return await self._run(operation, handler, request)
                finally:
                    self.rates.leave(operation)
            except Refused as refused:
                return problem(refused)

        return guarded

    def worker(self, operation: str, handler: Handler) -> Handler:
        """Make a worker's route of a handler."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._check_worker(request)
                return await self._run(operation, handler, request)
            except Refused as refused:
                return problem(refused)

        return guarded

    async def _run(
        self, operation: str, handler: Handler, request: web.Request
    ) -> web.StreamResponse:
        self.observer(operation, request)
        self.faults.before(operation)
        response = await handler(request)
        await self.faults.after(operation)
        return response

    def _check_client(self, request: web.Request) -> None:
        if self.api_key is None:
            return
        sent = request.headers.get("Authorization", "")
        key = sent[7:] if sent[:7].lower() == "bearer " else sent
        if not _same(key.strip(), self.api_key):
            raise Refused(401, "the API key is missing or wrong")

    def _check_worker(self, request: web.Request) -> None:
        if not _same(request.headers.get("Authorization", ""), self.worker_key):
            raise Refused(401, "the worker's key is missing or wrong")


def _same(sent: str, key: str) -> bool:
    """Compare keys in constant time."""
    return hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), key.encode())
