"""Delays and errors that a test or a benchmark puts into chosen operations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from emulator.errors import Refused


class Faults:
    """What goes wrong, by operation ("job-take", "job-done", "run", ...).

    delays: seconds between doing what was asked and answering; errors: HTTP statuses that the
    next requests are answered with, in this order, instead of being done.
    """

    def __init__(
        self,
        *,
        delays: Mapping[str, float] | None = None,
        errors: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Copy what is given."""
        self._delays = dict(delays or {})
        self._errors = {operation: list(statuses) for operation, statuses in (errors or {}).items()}

    def before(self, operation: str) -> None:
        """Refuse the request when an error is due."""
        statuses = self._errors.get(operation)
        if statuses:
            raise Refused(statuses.pop(0), "an error that was asked for")

    async def after(self, operation: str) -> None:
        """Hold the answer back."""
        seconds = self._delays.get(operation)
        if seconds:
            await asyncio.sleep(seconds)
