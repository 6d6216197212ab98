"""`python -m gateway`: text-generation-webui's API on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from gateway.runpod_api import RunpodApi
from gateway.server import running_gateway
from gateway.settings import GatewaySettings, is_loopback, parse_settings
from worker.errors import JobError, SettingsError
from worker.joblog import configure, logger


async def serve(settings: GatewaySettings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if not is_loopback(settings.host):
        logger.warning("everybody who reaches %s can use your endpoint", settings.host)
    try:
        async with running_gateway(settings) as gateway:
            logger.info("blocking API: %s/api/v1/   OpenAI: %s/v1/", gateway.url, gateway.url)
            logger.info("websockets: %s/api/v1/stream and chat-stream", gateway.stream_url)
            greeting = asyncio.create_task(_greet(gateway.api, settings.url))
            await stopped.wait()
            greeting.cancel()
            await asyncio.wait({greeting})
    except OSError as error:
        logger.error("can't listen: %s", error.strerror)
        return 1
    return 0


async def _greet(api: RunpodApi, url: str) -> None:
    """Say whether the endpoint answers; one that does not may do so later."""
    try:
        workers = (await api.health()).get("workers")
    except JobError as error:
        logger.warning("endpoint %s: %s", url, error)
    else:
        logger.info("endpoint %s answers; workers: %s", url, workers)


def main() -> int:
    """Run the command line; exit code 2 for wrong settings."""
    configure("info", as_json=False)
    try:
        settings = parse_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        logger.error("%s", error)
        return 2
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
