"""A deadline for a block of async code, on the monotonic clock.

`asyncio.timeout` came with Python 3.11; `asyncio.wait_for` makes a task for each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float, error: Exception) -> Iterator[None]:
    """Cancel the current task's block after `seconds` and raise `error` in place of that.

    A cancellation from elsewhere goes through unchanged.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("deadline needs a running task")
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        yield
    except asyncio.CancelledError:
        if expired:
            raise error from None
        raise
    finally:
        timer.cancel()
