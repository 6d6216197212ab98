"""A gateway in one process: the endpoint's client, the jobs and both ports wired together.

async with running_gateway(settings) as gateway:
    ...  # gateway.url, gateway.stream_url
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from gateway.blocking_api import BlockingApi
from gateway.jobs import Jobs
from gateway.openai_api import OpenAiApi
from gateway.runpod_api import RunpodApi
from gateway.settings import GatewaySettings
from gateway.stream_api import StreamApi
from gateway.web import application

_SHUTDOWN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway. url: http://host:port; stream_url: ws://host:port."""

    url: str
    stream_url: str
    api: RunpodApi


@asynccontextmanager
async def running_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Run a gateway; port 0 takes a free one. At the end what still runs is cancelled.

    Raises OSError when a port is taken.
    """
    async with AsyncExitStack() as stack:
        api = RunpodApi(settings.url, settings.api_key)
        stack.push_async_callback(api.close)
        jobs = Jobs(api, wait=settings.wait)
        stack.push_async_callback(jobs.close)
        plain = [*BlockingApi(jobs).routes(), *OpenAiApi(jobs).routes()]
        streams = StreamApi(jobs).routes()
        address = await _listen(stack, plain, settings, settings.port)
        stream_address = await _listen(stack, streams, settings, settings.stream_port)
        yield Gateway(f"http://{address}", f"ws://{stream_address}", api)


async def _listen(
    stack: AsyncExitStack, routes: list[web.RouteDef], settings: GatewaySettings, port: int
) -> str:
    """Serve until the stack unwinds; host:port. A client that hangs up cancels its handler."""
    runner = web.AppRunner(
        application(routes, settings.origin),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, settings.host, port).start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{runner.addresses[0][1]}"
