"""Tells an engine that hangs from one that is only slow, busy or starved.

An engine that answers no probe and whose processes use no processor time hangs: nothing is going on
in it. One that does not answer but works (a long prompt on a slow processor, a spinning GPU) is
given much longer.

Time is counted in ticks of the worker's own event loop, one for each however late it comes. So what
the worker did not get (a frozen container, a machine that is overloaded) is not held against the
engine, which did not get it either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

# Of the patience: pause between two probes, one tick, and one look at the processor time.
_PAUSE, _TICK, _LOOK = 0.2, 0.05, 0.5
# Of one core: what an engine that works uses at least. Timers of an idle one are far below.
_WORKS = 0.1


class Probed(Protocol):
    """An engine as far as it is watched."""

    def processor_seconds(self) -> float | None:
        """What all its processes have used of the processor; None when that can't be told."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an engine may be silent, in units of the patience.

    still: while it does nothing, by whether jobs run on it; works: while it uses the processor.
    """

    still_idle: float = 1.0
    still_busy: float = 3.0
    works_idle: float = 5.0
    works_busy: float = 60.0


class HangWatch:
    """Probes an engine over and over.

    probe: a cheap request; whether it was answered (an error counts as an answer, a refused
    connection does not). idle: whether no job runs. exempt: whether silence is allowed now, as
    during a load. patience: seconds of silence after which an idle engine hangs.
    """

    def __init__(
        self,
        engine: Probed,
        *,
        probe: Callable[[], Awaitable[bool]],
        idle: Callable[[], bool],
        exempt: Callable[[], bool],
        patience: float,
        limits: Limits | None = None,
    ) -> None:
        self._engine = engine
        self._probe = probe
        self._idle = idle
        self._exempt = exempt
        self._patience = patience
        self._limits = limits or Limits()

    async def until_hang(self) -> None:
        """Return once the engine hangs."""
        while True:
            await asyncio.sleep(_PAUSE * self._patience)
            if not self._exempt() and await self._stays_silent():
                return

    async def _stays_silent(self) -> bool:
        """Probe until an answer or an exemption comes (False), or the engine hangs (True)."""
        silence = _Silence(self._engine, self._limits, self._patience)
        probe = asyncio.ensure_future(self._probe())
        try:
            while True:
                await asyncio.wait({probe}, timeout=_TICK * self._patience)
                if probe.done():
                    if probe.result():
                        return False
                    await asyncio.sleep(_TICK * self._patience)
                    probe = asyncio.ensure_future(self._probe())
                if self._exempt():
                    return False
                silence.tick()
                if silence.too_long(idle=self._idle()):
                    return True
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)


class _Silence:
    """How long an engine has not answered, and how long it has done nothing; in patiences."""

    def __init__(self, engine: Probed, limits: Limits, patience: float) -> None:
        self._engine = engine
        self._limits = limits
        self._least = _WORKS * _LOOK * patience
        self._silent = _PAUSE
        self._still = 0.0
        self._next_look = _LOOK
        self._used: float | None = None

    def tick(self) -> None:
        """Count one tick, and look at the processor time when that is due."""
        self._silent += _TICK
        if self._silent + _TICK / 2 < self._next_look:
            return
        self._next_look += _LOOK
        before, self._used = self._used, self._engine.processor_seconds()
        if before is None or self._used is None or self._used - before > self._least:
            self._still = 0.0
        else:
            self._still += _LOOK

    def too_long(self, *, idle: bool) -> bool:
        """Whether the engine hangs; idle: no job runs on it."""
        limits = self._limits
        still = limits.still_idle if idle else limits.still_busy
        works = limits.works_idle if idle else limits.works_busy
        return self._still + _LOOK >= still or self._silent >= works
