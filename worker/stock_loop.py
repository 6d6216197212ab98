"""The same jobs under the SDK's own job loop: the way back, should the platform outgrow ours.

Slower (up to a second between jobs), and a job that arrives during shutdown is lost: that is the
SDK's JobScaler (rp_scale.py). Only its handler is replaced: with the SDK's a handler is a generator
or not once and for all, a generator's output is a list, and a stopped job does not reach a
generator that is being posted.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from worker.output import Outcome
from worker.runpod_sdk import Sdk
from worker.serving import EXIT_FAILED, EXIT_STOPPED, Gate, Runner, first_of, on_signals
from worker.stream import Channel, Discard

logger = logging.getLogger(__name__)


async def serve_stock(
    runner: Runner,
    *,
    sdk: Sdk,
    capacity: int,
    grace_period: float,
    gate: Gate | None = None,
    fatal: Gate | None = None,
) -> int:
    """Like `runpod_loop.serve`, with the SDK's loop; the gate is waited for once, at the start.

    After a signal jobs and polls have grace_period seconds, then they are cut off (returns 0 all
    the same). Results are sent by the SDK, which gives them up on a dropped connection.
    """
    await sdk.check_fitness()
    fatal = fatal or asyncio.Event()
    stop = asyncio.Event()
    with sdk.heartbeat(), on_signals(stop.set):
        if gate is not None:
            await first_of(gate.wait(), stop.wait(), fatal.wait())
        # a constant: the SDK takes no job while a change waits for the running ones to end
        scaler = sdk.job_scaler({"concurrency_modifier": lambda _: capacity})
        scaler.jobs_handler = _Handler(runner, sdk)
        jobs = asyncio.create_task(scaler.run())
        try:
            await first_of(jobs, stop.wait(), fatal.wait())
            scaler.kill_worker()
            if stop.is_set():
                await first_of(asyncio.wait({jobs}, timeout=grace_period), fatal.wait())
        finally:
            for task in (jobs, *scaler.jobs_tasks.values()):
                task.cancel()
            await asyncio.wait({jobs})
    if not jobs.cancelled() and jobs.exception() is not None:
        logger.error("the SDK's job loop failed", exc_info=jobs.exception())
    return EXIT_STOPPED if stop.is_set() else EXIT_FAILED


class _Handler:
    """What the SDK calls for a job, in place of its handle_job(session, config, job)."""

    def __init__(self, runner: Runner, sdk: Sdk) -> None:
        self._runner = runner
        self._sdk = sdk

    async def __call__(self, session: Any, _config: dict[str, Any], job: dict[str, Any]) -> None:
        """Run the job, post its chunks if they are wanted, and its result."""
        stream = self._runner.wants_stream(job)
        if stream:
            outcome = await self._streamed(session, job)
        else:
            outcome = await self._runner.run(job, Discard())
        await self._sdk.send_result(session, json.loads(outcome.body), job, is_stream=stream)

    async def _streamed(self, session: Any, job: dict[str, Any]) -> Outcome:
        channel = Channel(self._runner.merger())
        poster = asyncio.create_task(self._post(session, channel, job))
        try:
            outcome = await self._runner.run(job, channel)
            channel.close()
            await poster
        finally:
            poster.cancel()
        return outcome

    async def _post(self, session: Any, channel: Channel, job: dict[str, Any]) -> None:
        """Post chunks in order until the channel is closed and empty."""
        try:
            while chunks := await channel.take():
                for chunk in chunks:
                    await self._sdk.stream_result(session, {"output": chunk}, job)
        finally:
            channel.close()
