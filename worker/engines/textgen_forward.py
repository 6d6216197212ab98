"""OpenAI-compatible requests to today's textgen: within its route policy, its lies found out.

An answer is streamed only when the caller wants that: textgen notices a caller who hangs up on a
plain request too (modules/api/script.py, _wait_for_disconnect), and tells only there what is wrong
with a request; a stream just breaks off.
"""

from __future__ import annotations

import asyncio
from typing import Any

from worker.changes import Changes
from worker.client import EngineClient
from worker.engines import textgen_routes as routes
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_form import post_form
from worker.engines.textgen_host import Host
from worker.engines.textgen_load import read_template
from worker.engines.textgen_routes import Kind
from worker.errors import EngineDown, InvalidJob, JobError
from worker.forward import Forwarder
from worker.job import Request
from worker.joblog import logger
from worker.progress import Progress
from worker.slots import Slots
from worker.stream import Sink


class TextgenForwarder:
    """Runs one request of the engine's own dialect."""

    def __init__(
        self, client: EngineClient, slots: Slots, backend: TextgenBackend, host: Host
    ) -> None:
        """Share the engine's connection, slots and backend."""
        self._client = client
        self._slots = slots
        self._changes = Changes(slots)
        self._backend = backend
        self._host = host
        self._forwarder = Forwarder(client, slots)
        self._stops: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The engine's JSON; for a stream every event goes to the sink on the way.

        Raises JobError.
        """
        kind = routes.kind_of(request, admin=self._host.settings.model_admin)
        routes.check_body(request)
        try:
            result = await self._run(kind, request, sink, progress)
        except (InvalidJob, EngineDown):
            raise
        except JobError as error:
            raise await self._backend.explain(error, request.path) from error
        if kind is Kind.GENERATE:
            await self._check_empty(request, result)
        return result

    async def _run(self, kind: Kind, request: Request, sink: Sink, progress: Progress) -> Any:
        """Run a request as its kind asks for."""
        if kind is Kind.CHANGE:
            return await self._changes.run(lambda: self._change(request))
        if kind is Kind.STOP:
            self._slots.stop_all()
            return "OK"
        if kind is Kind.READ or request.stream:
            return await self._forwarder.answer(request, sink, progress)
        async with self._slots.generation() as stop:
            progress.slot()
            if kind is Kind.FORM:
                return await post_form(self._client, request.path, request.body)
            loop = asyncio.get_running_loop()
            # A stop is for all that runs, on the engine's side as on the worker's.
            stop.on_request(lambda: self._stops.add(loop.create_task(self._stop_engine())))
            result = await self._client.json("POST", request.path, request.body)
        usage = result.get("usage") if isinstance(result, dict) else None
        progress.tokens(usage.get("completion_tokens") if isinstance(usage, dict) else None)
        return result

    async def _stop_engine(self) -> None:
        """Have the engine end what it generates; each request returns what it has."""
        try:
            await self._client.json("POST", "/v1/internal/stop-generation", {})
        except JobError as error:
            logger.warning("the engine was not stopped: %s", error)

    async def _change(self, request: Request) -> Any:
        """Load or unload, verified."""
        body = request.body
        if request.path == "/v1/internal/model/load":
            name, args = body.get("model_name"), body.get("args") or {}
            if not isinstance(name, str) or not isinstance(args, dict):
                raise InvalidJob("send model_name, a text, and args, an object")
            templates = self._host.launch.user_data / "instruction-templates"
            await self._backend.models.load(name, args, read_template(body, templates))
        else:
            await self._backend.unload()
        return "OK"

    async def _check_empty(self, request: Request, result: Any) -> None:
        """Make a failure of an answer that is empty because its prompt has no room."""
        context = self._host.state.context
        fault = routes.silent_failure(request.path, request.body, result, context)
        if fault is not None:
            raise InvalidJob(fault)
