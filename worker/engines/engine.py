"""What the worker needs of any engine, whichever it is: its life, and who answers requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import aiohttp

    from worker.answerer import Answerer
    from worker.client import EngineClient
    from worker.slots import Slots


class Engine(Protocol):
    """One engine process, from its spawn to its end."""

    @property
    def slots(self) -> int:
        """How many generations really run at once."""
        ...

    @property
    def probe_path(self) -> str:
        """A path that an idle engine answers at once to GET."""
        ...

    @property
    def work_path(self) -> str | None:
        """A path that is answered by what generates and not by its HTTP server alone, if any."""
        ...

    def tail(self) -> list[str]:
        """The last lines that the process printed, oldest first."""
        ...

    def processor_seconds(self) -> float | None:
        """What its processes have used of the processor; None when that can't be told."""
        ...

    @property
    def model_name(self) -> str | None:
        """The model that is loaded and ready, None when none is."""
        ...

    @property
    def model_path(self) -> Path:
        """The model that it is started with: a file or a folder."""
        ...

    def spawn(self) -> None:
        """Start the process, before anything heavy is imported; it is not ready yet.

        It may be called again when the process has died. Raises JobError (EngineStartFailed,
        UnknownRoute) for what can be seen to be wrong before.
        """
        ...

    async def wait_ready(self, session: aiohttp.ClientSession) -> Mapping[str, float]:
        """Wait until a token was generated; the seconds of each phase, in order.

        Raises EngineStartFailed with the cause. The session is kept for later loads.
        """
        ...

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        """What answers requests on this engine."""
        ...

    async def wait_died(self) -> str:
        """Return only when the ready engine has died by itself, with the cause in words.

        A load in place of the loaded model, in whatever process, is no death.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Wait up to `grace` seconds until nothing is generated, then end the process for good."""
        ...

    def abort(self) -> None:
        """Kill a process that hangs, blocking; for everybody else it has died by itself."""
        ...

    def kill(self) -> None:
        """End the process at once, blocking; for the way out of the worker."""
        ...
