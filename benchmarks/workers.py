"""Worker processes to measure: ours, on a ready engine; and the stock SDK with an empty handler.

As a module it is such a worker: `python -m benchmarks.workers ours|stock OPTIONS-AS-JSON`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

    from worker.answerer import Answerer
    from worker.client import EngineClient
    from worker.slots import Slots

ROOT = Path(__file__).parent.parent


class ReadyEngine:
    """An engine that was ready before the worker was: whatever answers at the port."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.probe_path = "/v1/models"
        self.model_name = "stub"

    def tail(self) -> list[str]:
        """It has printed nothing."""
        return []

    work_path = None

    def processor_seconds(self) -> None:
        """It is not known."""

    @property
    def model_path(self) -> Path:
        """It has none."""
        return Path(os.devnull)

    def spawn(self) -> None:
        """It runs."""

    async def wait_ready(self, _session: aiohttp.ClientSession) -> Mapping[str, float]:
        """It is ready."""
        return {}

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        """What answers OpenAI-compatible requests."""
        from worker.forward import Forwarder  # noqa: PLC0415 - as late as real engines do

        return Forwarder(client, slots)

    async def wait_died(self) -> str:
        """It lives on."""
        await asyncio.Event().wait()
        return ""

    async def stop(self, _grace: float) -> None:
        """It is not the worker's to stop."""

    def abort(self) -> None:
        """As above."""

    def kill(self) -> None:
        """As above."""


@asynccontextmanager
async def worker_process(
    command: list[str], variables: Mapping[str, str], *, program: str = sys.executable
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker in a process group of its own, killed at the end; its log goes nowhere."""
    process = await asyncio.create_subprocess_exec(
        program,
        *command,
        cwd=ROOT,
        env={**os.environ, **variables},
        start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def ours(engine_port: int, *, slots: int, loop: str = "event") -> list[str]:
    """The command of our worker on a ready engine; loop: "event" or "stock"."""
    options = {"port": engine_port, "slots": slots, "loop": loop}
    return ["-m", "benchmarks.workers", "ours", json.dumps(options)]


def stock(*, slots: int) -> list[str]:
    """The command of a worker of the SDK's own, whose handler sleeps as long as a job says."""
    return ["-m", "benchmarks.workers", "stock", json.dumps({"slots": slots})]


def _serve_ours(port: int, slots: int, loop: str) -> int:
    first_statement = time.monotonic()
    from worker.cold_start import ColdStart, importing  # noqa: PLC0415 - imports are what is measured

    with importing():
        from worker import joblog, service  # noqa: PLC0415 - as above
    from worker.settings import Settings  # noqa: PLC0415 - as above

    joblog.configure("info", as_json=True)
    settings = Settings(engine_port=port, worker_loop=loop)
    return service.serve(settings, ReadyEngine(slots), ColdStart({}, first_statement))


def _serve_stock(slots: int) -> None:
    import runpod  # noqa: PLC0415 - imports are what is measured

    async def handler(job: dict[str, Any]) -> Any:
        await asyncio.sleep(job["input"]["payload"].get("delay", 0))
        return {"done": True}

    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: slots})


if __name__ == "__main__":
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    logging.basicConfig(level="WARNING")
    if kind == "ours":
        sys.exit(_serve_ours(**options))
    _serve_stock(**options)
