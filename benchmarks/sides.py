"""The sides of the comparison, each as the same two calls: one answer, and one stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from benchmarks.peers import OlderWorker, Validate, worker_vllm
from benchmarks.stub import MODEL
from benchmarks.wire import Floor
from worker import joblog
from worker.client import EngineClient
from worker.forward import Forwarder
from worker.runner import Runner
from worker.slots import Slots
from worker.stream import Discard

OURS, FLOOR, SHARED = "ours", "floor", "shared aiohttp"
NEW_FLOOR = "floor, new connection"
OLDER, VLLM = "older worker", "worker-vllm"
MESSAGES = [{"role": "user", "content": "Write a haiku about a worker that waits for its engine."}]
OnText = Callable[[str], None]


class Side(Protocol):
    """One way from a caller to the engine."""

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """Get one whole answer; raises when it is not one."""
        ...

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """Get one stream, handing over what comes as the side hands it to its caller."""
        ...


@asynccontextmanager
async def all_sides(port: int, validate: Validate) -> AsyncIterator[dict[str, Side]]:
    """Every side, on the upstream at this port."""
    older = OlderWorker(port, validate)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        client = EngineClient(port)
        stack.push_async_callback(client.close)
        floor = FloorSide(port)
        stack.push_async_callback(floor.close)
        stack.callback(older.close)
        stack.enter_context(_log_to_nowhere())
        yield {
            OURS: Ours(Runner(Forwarder(client, Slots(1024)), job_timeout=60)),
            FLOOR: floor,
            NEW_FLOOR: FloorSide(port, keep=False),
            SHARED: SharedSession(session, port),
            OLDER: Older(older),
            VLLM: Vllm(port),
        }


def _job(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    api = {"method": "POST", "endpoint": path}
    return {"id": "job", "input": {"api": api, "payload": body}}


class Ours:
    """The worker's own way: job in, outcome out, with its log line."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """Run a job."""
        outcome = await self._runner.run(_job(path, body), Discard())
        if outcome.error:
            raise RuntimeError(outcome.error)

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """Run a job whose events go to on_text."""
        outcome = await self._runner.run(_job(path, body), _Hand(on_text))
        if outcome.error:
            raise RuntimeError(outcome.error)


class _Hand:
    """A sink that hands on at once."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text

    async def put(self, event: Any, _size: int) -> None:
        self._on_text(event)


class FloorSide:
    """Raw connections, as many as are used at once; `keep`: for the next call."""

    def __init__(self, port: int, *, keep: bool = True) -> None:
        self._port = port
        self._keep = keep
        self._idle: list[Floor] = []

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """POST and parse."""
        async with self._connection() as connection:
            await connection.call(path, json.dumps(body).encode())

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """POST and hand on each chunk."""
        async with self._connection() as connection:
            async for chunk in connection.stream(path, json.dumps(body).encode()):
                on_text(chunk.decode())

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Floor]:
        connection = self._idle.pop() if self._idle else await Floor.open(self._port)
        yield connection
        if self._keep:
            self._idle.append(connection)
        else:
            await connection.close()

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            await connection.close()


class SharedSession:
    """One aiohttp session and nothing else."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """POST and parse."""
        async with self._session.post(self._base + path, json=body) as response:
            await response.json()

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """POST and hand on what comes."""
        async with self._session.post(self._base + path, json=body) as response:
            async for piece in response.content.iter_any():
                on_text(piece.decode())


class Older:
    """The older worker: the event loop stands still meanwhile, as it does under the SDK."""

    def __init__(self, worker: OlderWorker) -> None:
        self._worker = worker

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """Run a job."""
        self._worker.handle(_job(path, body))

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """It has no streams."""
        raise NotImplementedError


class Vllm:
    """worker-vllm; its jobs name the model, which spares it a second session."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def call(self, path: str, body: Mapping[str, Any]) -> None:
        """Run a job."""
        await self.stream(path, body, lambda _: None)

    async def stream(self, path: str, body: Mapping[str, Any], on_text: OnText) -> None:
        """Run a job and hand on what it yields."""
        named = {"model": MODEL, **body}
        job = {"id": "job", "input": {"openai_route": path, "openai_input": named}}
        async for piece in worker_vllm(self._port, job):
            on_text(piece)


@contextlib.contextmanager
def _log_to_nowhere() -> Any:
    """The worker's log as on the platform, JSON lines that are really written, to /dev/null."""
    joblog.configure("info", as_json=True)
    with Path(os.devnull).open("w") as nowhere:
        for handler in joblog.logger.handlers:
            handler.setStream(nowhere)  # type: ignore[attr-defined] # configure makes this kind
        try:
            yield
        finally:
            joblog.logger.handlers.clear()


async def in_parallel(call: Callable[[], Any], *, total: int, at_once: int) -> None:
    """Make `total` calls, `at_once` of them at a time."""
    left = iter(range(total))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(at_once)))
