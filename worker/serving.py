"""What both job loops share: their interfaces, bounds and exit codes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from worker.output import Outcome
from worker.stream import Merge, Sink

EXIT_STOPPED = 0
EXIT_FAILED = 1


class Runner(Protocol):
    """What answers jobs."""

    async def run(self, job: Mapping[str, Any], sink: Sink) -> Outcome:
        """Run one job; raises nothing but CancelledError."""
        ...

    def wants_stream(self, job: Mapping[str, Any]) -> bool:
        """Whether chunks are to be posted while the job runs; cheap, raises nothing."""
        ...

    def merger(self) -> Merge:
        """Make what turns one job's events into chunks: one at least, whatever the events."""
        ...


class Gate(Protocol):
    """Something that opens (an asyncio.Event is one)."""

    async def wait(self) -> Any:
        """Return as soon as it is open."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a job loop, in seconds unless said otherwise.

    poll: how long the platform may hold a poll (the SDK's value); floor, stop_floor: how long an
    empty answer takes at least; window: for a poll under way at shutdown, whose job is run;
    post: for one POST of a result; result: how long one is tried (the platform deletes a job after
    a day); refused: how long one that the platform refuses; chunk: for one POST of a chunk, and how
    long one is tried (the result holds everything); fatal: for jobs when the engine is gone;
    last_posts: for results at the end; undelivered_bytes: of results, above it no job is taken.
    """

    poll: float = 90.0
    floor: float = 0.05
    stop_floor: float = 1.0
    window: float = 1.0
    post: float = 60.0
    chunk: float = 5.0
    result: float = 86_400.0
    refused: float = 60.0
    fatal: float = 2.0
    last_posts: float = 2.0
    undelivered_bytes: int = 200_000_000


@contextmanager
def on_signals(handler: Callable[[], None]) -> Iterator[None]:
    """Call `handler` at each SIGTERM and SIGINT; afterwards they have their default effect."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Wait until one of them is done; what is no task of the caller's is ended then.

    Raises what a coroutine among them raised.
    """
    tasks = {asyncio.ensure_future(awaitable) for awaitable in awaitables}
    mine = tasks - set(awaitables)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done & mine:
            task.result()
    finally:
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
