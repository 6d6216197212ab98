"""A deadline for a block of async code, on the monotonic clock.

`asyncio.timeout` came with Python 3.11; `asyncio.wait_for` makes a task for each call.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class deadline:  # noqa: N801  # it is used like a function
    """Cancel the current task's block after `seconds` and raise `error` in place of that.

    A cancellation from elsewhere goes through unchanged.
    """

    __slots__ = ("_error", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, error: Exception) -> None:
        self._seconds = seconds
        self._error = error
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("deadline needs a running task")
        self._task = task
        self._timer = task.get_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._expired and kind is asyncio.CancelledError:
            raise self._error from None
