"""Keeps the engine alive: sees its death or a hang, restarts it a few times, then gives up.

While the engine is being restarted no job is taken; jobs that have no slot yet wait for it, those
that ran on it are FAILED with what it died of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from worker.client import EngineClient
from worker.engines.engine import Engine
from worker.errors import EngineDown, JobError
from worker.hang import HangWatch, Limits
from worker.joblog import logger
from worker.slots import Slots, Use

_FIRST_PAUSE = 0.5
# What generates is asked half as often. It may be silent for as long as it takes to work through a
# batch of a prompt: five minutes after a job, and longer than most jobs beside one. That a GPU is
# waited for without the processor, for a moment after a job or longer beside one, is no hang.
_WORK_PATIENCE = 2.0
_WORK_LIMITS = Limits(still_idle=2, still_busy=15, works_idle=150, works_busy=360)


class Supervisor:
    """One engine, through all its lives.

    restarts: how often it is started again; probe_seconds: after how many of silence an idle engine
    hangs (see hang.py). cause: why it was killed or did not start, None otherwise. phases:
    the seconds of the last start's parts.
    """

    def __init__(
        self,
        engine: Engine,
        client: EngineClient,
        slots: Slots,
        *,
        restarts: int,
        probe_seconds: float,
    ) -> None:
        """Take an engine that was spawned."""
        self._engine = engine
        self._client = client
        self.slots = slots
        self._restarts = restarts
        self._probe_seconds = probe_seconds
        self.ready = asyncio.Event()
        self.lost = asyncio.Event()
        self.cause: str | None = None
        self.phases: Mapping[str, float] = {}

    async def run(self) -> None:
        """Watch until the engine is lost; `ready` and `lost` tell everybody else."""
        try:
            await self._become_ready()
            pauses = [_FIRST_PAUSE * 2**number for number in range(self._restarts)]
            while True:
                logger.error("%s", await self._end_of_life())
                if not await self._comes_back(pauses):
                    break
            logger.error("the engine died too often; the worker ends so that it is replaced")
        except JobError as error:
            self.cause = str(error)
            logger.error("the engine did not start: %s", error)
        finally:
            self.ready.clear()
            self.lost.set()

    async def _become_ready(self) -> None:
        """Wait for the first token and log where the time went."""
        self.phases = await self._engine.wait_ready(self._client.session)
        self.cause = None
        seconds = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self.phases.items())
        logger.info("engine ready with %s: %s", self._engine.model_name, seconds)
        self.ready.set()

    async def _end_of_life(self) -> str:
        """Wait until the engine has died, or hangs and is killed; the cause in words."""
        died = asyncio.ensure_future(self._engine.wait_died())
        hangs = asyncio.ensure_future(self._until_hang())
        try:
            await asyncio.wait({died, hangs}, return_when=asyncio.FIRST_COMPLETED)
            self.ready.clear()
            if not died.done():
                self.cause = hangs.result()
            # Of an engine that hangs, or that outlived its own child, nothing may be left.
            await asyncio.to_thread(self._engine.abort)
            return self.cause or died.result()
        finally:
            for task in (died, hangs):
                task.cancel()
            await asyncio.gather(died, hangs, return_exceptions=True)

    async def _comes_back(self, pauses: list[float]) -> bool:
        """Start the engine again, once for each pause that is left; False when none is."""
        while pauses:
            try:
                await self._restart(pauses.pop(0))
            except JobError as error:
                logger.error("the engine did not start again: %s", error)  # no traceback
            else:
                return True
        return False

    async def _restart(self, pause: float) -> None:
        """Start the engine again, before anybody else may use it."""
        async with self.slots.use(Use.CHANGE, first=True):
            logger.warning("the engine is started again in %g s", pause)
            await asyncio.sleep(pause)
            self._engine.spawn()
            await self._become_ready()

    async def _until_hang(self) -> str:
        """Return once the engine hangs, with what is seen of that in words."""
        hangs = {asyncio.ensure_future(watch.until_hang()): sign for sign, watch in self._watches()}
        try:
            done, _ = await asyncio.wait(hangs, return_when=asyncio.FIRST_COMPLETED)
            for hang in done:
                hang.result()
            return next(f"the engine hangs: it {hangs[hang]} nothing any more" for hang in done)
        finally:
            for hang in hangs:
                hang.cancel()
            await asyncio.gather(*hangs, return_exceptions=True)

    def _watches(self) -> Iterator[tuple[str, HangWatch]]:
        """What the engine does no more when it hangs, and the watch that sees it."""
        engine = self._engine
        yield "answers", self._watch(engine.probe_path, self._probe_seconds, Limits())
        if engine.work_path is not None:
            patience = self._probe_seconds * _WORK_PATIENCE
            yield "generates", self._watch(engine.work_path, patience, _WORK_LIMITS)

    def _watch(self, path: str, patience: float, limits: Limits) -> HangWatch:
        return HangWatch(
            self._engine,
            probe=lambda: self._answers(path),
            idle=lambda: self.slots.idle,
            exempt=lambda: self.slots.changing or self._engine.model_name is None,
            patience=patience,
            limits=limits,
        )

    async def _answers(self, path: str) -> bool:
        """Whether the engine answers a cheap request; a refusal is an answer too."""
        try:
            await self._client.json("GET", path)
        except EngineDown:
            return False
        except JobError:
            return True
        return True
