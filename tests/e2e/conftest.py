"""The real worker (handler.py, SDK, embedded engine) under the emulator, in both job loops."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from emulator.faults import Faults
from emulator.server import Emulator, running_emulator
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
LOOPS = ("event", "stock")
SLOTS = 4


@dataclass
class Client:
    """The client side of an emulator."""

    emulator: Emulator
    http: aiohttp.ClientSession

    async def post(self, operation: str, body: Any = None) -> Any:
        async with self.http.post(f"{self.emulator.base}/{operation}", json=body) as response:
            return await response.json()

    async def get(self, operation: str) -> Any:
        async with self.http.get(f"{self.emulator.base}/{operation}") as response:
            return await response.json()

    async def run(self, endpoint: str, policy: Any = None, **payload: Any) -> str:
        job = {"input": {"api": {"method": "POST", "endpoint": endpoint}, "payload": payload}}
        answer = await self.post("run", {**job, **({"policy": policy} if policy else {})})
        job_id: str = answer["id"]
        return job_id

    async def result(self, job_id: str, seconds: float = 30) -> Any:
        async def poll() -> Any:
            while True:
                status = await self.get(f"status/{job_id}")
                if status["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                    return status
                await asyncio.sleep(0.02)

        return await asyncio.wait_for(poll(), seconds)

    async def runsync(self, endpoint: str, **payload: Any) -> Any:
        job = {"input": {"api": {"method": "POST", "endpoint": endpoint}, "payload": payload}}
        return await self.post("runsync", job)


@dataclass
class Platform(Client):
    """An emulator with one worker."""

    worker: asyncio.subprocess.Process
    engine_port: int

    async def busy(self) -> int:
        url = f"http://127.0.0.1:{self.engine_port}/slots"
        async with self.http.get(url) as response:
            slots = await response.json()
        return sum(slot["is_processing"] for slot in slots)

    async def until_busy(self, count: int, seconds: float = 20) -> float:
        """Wait until so many slots generate; the seconds that took."""
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def poll() -> None:
            while await self.busy() != count:  # noqa: ASYNC110  # the engine tells nobody
                await asyncio.sleep(0.005)

        await asyncio.wait_for(poll(), seconds)
        return loop.time() - started


@asynccontextmanager
async def spawned_worker(
    emulator: Emulator, name: str, loop: str, **settings: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A worker process of this emulator and its engine's port; killed at the end if need be."""
    port = free_port()
    environment = {
        **os.environ,
        **emulator.worker_environment(name),
        "ENGINE_PORT": str(port),
        "ENGINE_SLOTS": str(SLOTS),
        "WORKER_LOOP": loop,
        **settings,
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "handler.py", cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        yield worker, port
    finally:
        if worker.returncode is None:
            worker.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(worker.wait(), 20)
            except asyncio.TimeoutError:
                worker.kill()
                await worker.wait()


@asynccontextmanager
async def running_platform(
    loop: str, faults: Faults | None = None, **settings: str
) -> AsyncIterator[Platform]:
    """An emulator and a worker that has answered its first job."""
    async with (
        running_emulator(faults=faults) as emulator,
        aiohttp.ClientSession() as http,
        spawned_worker(emulator, "w1", loop, **settings) as (worker, port),
    ):
        platform = Platform(emulator, http, worker, port)
        await platform.runsync("/model")
        yield platform


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LOOPS)
async def platform(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    async with running_platform(request.param, WORKER_GRACE_PERIOD="2") as running:
        yield running
