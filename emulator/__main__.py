"""`python -m emulator`: an endpoint on this machine, with its workers, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emulator.commands import greeting
from emulator.fleet import FleetOptions
from emulator.limits import Limits
from emulator.server import running_emulator

log = logging.getLogger("emulator")

_ROOT = Path(__file__).resolve().parent.parent


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="emulator",
        description="RunPod's queue on this machine, with worker processes behind it.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, default=8000, help="port to listen on, 0 for a free one (8000)")
    add("--workers", type=int, default=1, help="worker processes to keep running (1)")
    add("--endpoint-id", type=_endpoint_id, default="local", help="the endpoint's id (local)")
    add("--api-key", help="key that clients must send (default: none is asked for)")
    add("--worker-key", help="key that workers must send (default: a random one)")
    add("--worker-command", help="command of a worker (default: this Python with handler.py)")
    add("--rate-limits", action="store_true", help="answer 429 beyond RunPod's documented rates")
    add("--execution-timeout", type=float, default=600.0, help="seconds a job may run (600)")
    add("--grace", type=float, default=15.0, help="seconds from SIGTERM to SIGKILL (15)")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if options.api_key is None and not _is_loopback(options.host):
        log.warning("everybody who reaches %s can use it: set --api-key", options.host)
    command = shlex.split(options.worker_command or "") or [sys.executable, "handler.py"]
    try:
        async with running_emulator(
            host=options.host,
            port=options.port,
            endpoint_id=options.endpoint_id,
            api_key=options.api_key,
            worker_key=options.worker_key,
            rate_limits=options.rate_limits,
            limits=replace(Limits(), execution_timeout=options.execution_timeout),
            fleet=FleetOptions(
                command=command,
                folder=_ROOT,
                count=options.workers,
                grace=options.grace,
            ),
        ) as emulator:
            text = greeting(emulator.url, options.endpoint_id, with_key=options.api_key is not None)
            sys.stdout.write(text)
            sys.stdout.flush()
            await stopped.wait()
    except OSError as error:
        log.error("can't listen on %s:%d: %s", options.host, options.port, error.strerror)  # noqa: TRY400 - no traceback
        return 1
    return 0


def _endpoint_id(text: str) -> str:
    """Check an endpoint id: it becomes a part of URLs."""
    if not text.replace("-", "").isalnum() or not text.isascii():
        raise argparse.ArgumentTypeError("use letters, digits and hyphens")
    return text


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(asyncio.run(serve(parse(sys.argv[1:]))))
