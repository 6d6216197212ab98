"""A one-shot event that a thread sets and any number of coroutines wait for.

asyncio is imported on the first wait, not with the module: the engine is started before it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

Value = TypeVar("Value")


class Latch(Generic[Value]):
    """Holds a value once it is set, also when that was before any event loop ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = threading.Event()
        self._value: Value | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> Value | None:
        """The value, None until it is set."""
        return self._value

    def set(self, value: Value) -> None:
        """Keep the first value and wake everybody who waits; later ones are ignored."""
        with self._lock:
            if self._set.is_set():
                return
            self._value = value
            self._set.set()
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            # A closed loop raises: nobody waits there any more.
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    def wait_blocking(self, seconds: float) -> bool:
        """Block this thread until the value is set, or for so many seconds; says which."""
        return self._set.wait(seconds)

    async def wait(self) -> Value:
        """Return the value, waiting for it without a limit."""
        import asyncio  # noqa: PLC0415 - a waiter has a loop, so it is loaded already

        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._set.is_set():
                waiter.set_result(None)
            else:
                self._waiters.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)
        assert self._value is not None  # noqa: S101 - set before the waiters are woken
        return self._value


def _resolve(waiter: asyncio.Future[None]) -> None:
    """Wake one waiter, unless it was cancelled in the meantime."""
    if not waiter.done():
        waiter.set_result(None)
