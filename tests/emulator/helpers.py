"""Parts that the emulator's tests share: a hand-driven clock, a worker by hand, stock workers."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from emulator.endpoint import Endpoint
from emulator.fleet import FleetOptions
from emulator.limits import Limits
from emulator.server import Emulator
from emulator.submission import parse_submission

FAST = replace(
    Limits(),
    execution_timeout_range=(0.05, 60),
    ttl_range=(0.05, 60),
    runsync_wait_range=(0.05, 60),
    runsync_wait=10.0,
    webhook_pause=0.05,
    stream_wait=5.0,
    poll=5.0,
)

# What an unmodified worker is: the stock SDK's start with async handlers.
STOCK_WORKER = """
import asyncio, os, runpod

async def plain(job):
    value = job["input"]
    if value.get("die"):
        os._exit(1)
    if value.get("raise"):
        return {"error": "this went wrong"}
    await asyncio.sleep(value.get("seconds", 0))
    return {"echo": value, "engine_port": os.environ["ENGINE_PORT"]}

async def stream(job):
    for number in range(job["input"].get("count", 3)):
        yield {"number": number}
        await asyncio.sleep(job["input"].get("seconds", 0))

handler = stream if os.environ.get("STREAMS") else plain
config = {"handler": handler, "return_aggregate_stream": True, "concurrency_modifier": lambda _: 8}
runpod.serverless.start(config)
"""


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def submission(limits: Limits | None = None, **fields: Any) -> Any:
    """Make a checked request of these fields."""
    body = json.dumps({"input": {}, **fields}).encode()
    return parse_submission(body, limits or Limits())


def endpoint(clock: Clock, **options: Any) -> Endpoint:
    """Make an endpoint on a hand-driven clock."""
    return Endpoint(limits=options.pop("limits", Limits()), clock=clock, **options)


@dataclass(frozen=True)
class HandWorker:
    """A worker driven by a test, one request at a time."""

    session: aiohttp.ClientSession
    base: str
    id: str = "hand"

    async def take(self) -> Any:
        """Long-poll for one job; None for 204."""
        url = f"{self.base}/job-take/{self.id}?gpu=none&job_in_progress=0"
        async with self.session.get(url) as response:
            return await response.json() if response.status == 200 else None

    async def take_batch(self, size: int) -> Any:
        """Long-poll for a list of jobs; None for 204."""
        url = f"{self.base}/job-take-batch/{self.id}?gpu=none&batch_size={size}&job_in_progress=0"
        async with self.session.get(url) as response:
            return await response.json() if response.status == 200 else None

    async def stops(self) -> Any:
        """Long-poll for ids of jobs to stop; None for 204."""
        async with self.session.get(f"{self.base}/job-stop/{self.id}?gpu=none") as response:
            return (await response.json())["jobsToStop"] if response.status == 200 else None

    async def stream(self, job_id: str, output: Any) -> int:
        """Post one streamed output; the HTTP status."""
        url = f"{self.base}/job-stream/{self.id}/{job_id}?gpu=none&isStream=false"
        return await self._post(url, json.dumps({"output": output}).encode())

    async def done(self, job_id: str, **result: Any) -> int:
        """Post a result; the HTTP status."""
        return await self.done_raw(job_id, json.dumps(result).encode())

    async def done_raw(self, job_id: str, body: bytes) -> int:
        """Post a result as these bytes; the HTTP status."""
        url = f"{self.base}/job-done/{self.id}/{job_id}?gpu=none&isStream=false"
        return await self._post(url, body)

    async def _post(self, url: str, body: bytes) -> int:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with self.session.post(url, data=io.BytesIO(body), headers=headers) as response:
            return response.status


@asynccontextmanager
async def hand_worker(emulator: Emulator, worker_id: str = "hand") -> AsyncIterator[HandWorker]:
    """Open a worker's session, with its key."""
    headers = {"Authorization": emulator.worker_key}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield HandWorker(session, emulator.base, worker_id)


@asynccontextmanager
async def serving(
    worker: HandWorker, work: Callable[[HandWorker, dict[str, Any]], Any]
) -> AsyncIterator[None]:
    """Let a worker do `await work(worker, job)` for every job, one after the other."""

    async def loop() -> None:
        while True:
            job = await worker.take()
            if job is not None:
                await work(worker, job)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until a condition holds that belongs to another process or to the emulator's inside."""

    async def look() -> None:
        while not condition():  # noqa: ASYNC110 - a process sets no asyncio.Event
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), seconds)


async def open_polls(emulator: Emulator, count: int) -> None:
    """Wait until workers hold so many polls open."""
    roster = emulator.endpoint.roster
    await eventually(lambda: count == sum(worker.polls for worker in roster.all()))


async def echo(worker: HandWorker, job: dict[str, Any]) -> None:
    """Answer a job with its own input."""
    await worker.done(job["id"], output={"echo": job["input"]})


@asynccontextmanager
async def client_session(emulator: Emulator) -> AsyncIterator[Client]:
    """Open a client."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, emulator.base)


@dataclass(frozen=True)
class Client:
    """A client that speaks JSON."""

    session: aiohttp.ClientSession
    base: str

    async def get(self, path: str) -> tuple[int, Any]:
        """GET; status and JSON."""
        async with self.session.get(self.base + path) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """POST JSON, or bytes as they are; status and JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.base + path, data=io.BytesIO(data)) as response:
            return response.status, await response.json()

    async def run(self, **fields: Any) -> str:
        """Queue a job; its id."""
        _, answer = await self.post("/run", {"input": {}, **fields})
        return str(answer["id"])


def stock_fleet(folder: Path, count: int = 1) -> FleetOptions:
    """Make options for unmodified workers; their script is written to the folder."""
    script = folder / "stock_worker.py"
    script.write_text(STOCK_WORKER)
    return FleetOptions(
        command=[sys.executable, str(script)], folder=folder, count=count, grace=5.0, pause=0.05
    )
