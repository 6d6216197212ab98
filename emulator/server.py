"""The emulator in one process: state, HTTP, clock and workers wired together.

async with running_emulator(port=0) as emulator:
    ...  # emulator.url, emulator.base, emulator.jobs, emulator.worker_environment("w1")
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from emulator import documents
from emulator.client_api import ClientApi
from emulator.endpoint import Endpoint
from emulator.faults import Faults
from emulator.fleet import Fleet, FleetOptions
from emulator.jobs import Job
from emulator.limits import Limits
from emulator.openai_api import OpenAiApi
from emulator.page import Page
from emulator.rates import Rates
from emulator.web import Gate, Observer
from emulator.webhooks import Webhooks
from emulator.worker_api import WorkerApi

_TICK = 0.05
_CLOSE = 1.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how to reach it from here


@dataclass(slots=True, kw_only=True)
class Emulator:
    """A running emulator.

    url: http://host:port; endpoint: the state machine, for a look from inside.
    """

    url: str
    endpoint_id: str
    worker_key: str
    api_key: str | None
    endpoint: Endpoint
    fleet: Fleet | None = field(default=None)

    @property
    def base(self) -> str:
        """The endpoint's URL, http://host:port/v2/<endpoint id>."""
        return f"{self.url}/v2/{self.endpoint_id}"

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs that are kept, by id."""
        return self.endpoint.jobs

    def worker_environment(self, worker_id: str) -> dict[str, str]:
        """Make the variables that turn a worker into one of this emulator's, as RunPod sets them.

        "$ID" and "$RUNPOD_POD_ID" are meant literally: the SDK puts the ids there.
        """
        base = self.base
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=none",
            "RUNPOD_PING_INTERVAL": "2000",
            "RUNPOD_POD_ID": worker_id,
            "RUNPOD_AI_API_KEY": self.worker_key,
            "RUNPOD_LOG_LEVEL": "INFO",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }


@asynccontextmanager
async def running_emulator(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    endpoint_id: str = "local",
    api_key: str | None = None,
    worker_key: str | None = None,
    limits: Limits | None = None,
    rate_limits: bool = False,
    faults: Faults | None = None,
    observer: Observer | None = None,
    fleet: FleetOptions | None = None,
) -> AsyncIterator[Emulator]:
    """Run an emulator; port 0 takes a free one. Without `fleet` it starts no worker.

    api_key: what clients must send, None lets everybody in; worker_key: what workers must send, a
    random one by default; observer: called with each request's operation and the request.
    Raises OSError when the port is taken.
    """
    async with AsyncExitStack() as stack:
        limits = limits or Limits()
        webhooks = await stack.enter_async_context(Webhooks(limits))
        emulator = Emulator(
            url="",
            endpoint_id=endpoint_id,
            worker_key=worker_key or secrets.token_hex(16),
            api_key=api_key,
            endpoint=Endpoint(
                limits=limits,
                clock=time.monotonic,
                on_end=webhooks.notify,
                on_lost=lambda worker_id: _replace(emulator, worker_id, at_once=True),
                on_refresh=lambda worker_id: _replace(emulator, worker_id, at_once=False),
            ),
        )
        gate = Gate(
            worker_key=emulator.worker_key,
            api_key=api_key,
            rates=Rates(time.monotonic) if rate_limits else None,
        )
        gate.faults = faults or gate.faults
        gate.observer = observer or gate.observer
        emulator.url = await _listen(stack, _app(emulator, gate), host, port)
        ticking = asyncio.create_task(_tick(emulator.endpoint))
        stack.push_async_callback(_cancel, ticking)
        if fleet is not None:
            emulator.fleet = await stack.enter_async_context(
                Fleet(
                    fleet,
                    emulator.endpoint,
                    lambda worker_id: {**os.environ, **emulator.worker_environment(worker_id)},
                )
            )
        stack.callback(emulator.endpoint.drain)
        yield emulator


def _app(emulator: Emulator, gate: Gate) -> web.Application:
    """Make the application with the routes of all three sides."""
    endpoint = emulator.endpoint
    app = web.Application(client_max_size=endpoint.limits.result_bytes)
    for api in (ClientApi(endpoint), WorkerApi(endpoint), OpenAiApi(endpoint)):
        app.add_routes(api.routes(gate, f"/v2/{emulator.endpoint_id}"))
    app.add_routes(documents.routes(emulator.endpoint_id, endpoint.limits))
    app.add_routes(Page(endpoint, emulator.endpoint_id, time.monotonic).routes(gate))
    return app


async def _listen(stack: AsyncExitStack, app: web.Application, host: str, port: int) -> str:
    """Serve until the stack unwinds; the URL that it can be reached at."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port).start()
    bound = runner.addresses[0][1]
    name = _EVERYWHERE.get(host, host)
    return f"http://[{name}]:{bound}" if ":" in name else f"http://{name}:{bound}"


async def _tick(endpoint: Endpoint) -> None:
    """Let time pass for the endpoint."""
    while True:
        await asyncio.sleep(_TICK)
        endpoint.tick()


async def _cancel(task: asyncio.Task[None]) -> None:
    """End a task that runs for ever; raises what it failed with, if it did."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _replace(emulator: Emulator, worker_id: str, *, at_once: bool) -> None:
    """Replace a worker of the emulator's own; others are not its to stop."""
    if emulator.fleet is not None:
        emulator.fleet.replace(worker_id, at_once=at_once)
