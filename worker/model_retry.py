"""How long a download is tried: attempts, pauses and limits, all bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from worker.model_errors import ModelUnavailable

Result = TypeVar("Result")

_TOO_MANY = 429
_REQUEST_TIMEOUT = 408


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits, in seconds but for `attempts`: tries in a row that bring nothing new.

    total: for a whole model. stall: without a byte. pause: before the second attempt, doubled for
    each one after it up to longest_pause, which is also the longest Retry-After that is kept.
    """

    total: float = 3600.0
    stall: float = 15.0
    attempts: int = 5
    pause: float = 1.0
    longest_pause: float = 60.0


class Refused(Exception):
    """A server's answer with an error status; code and message are the hub's own headers."""

    def __init__(
        self, status: int, *, code: str = "", message: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"the server's status is {status}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether another attempt may do better."""
        return self.status in {_REQUEST_TIMEOUT, _TOO_MANY} or self.status >= 500


class Broken(Exception):
    """The network or the server failed; the text is the cause, as a part of a sentence."""


class Clock:
    """The deadline of one model and the way to cancel it; log gets a line for each new attempt."""

    def __init__(
        self, patience: Patience, cancel: threading.Event, log: Callable[[str], None]
    ) -> None:
        """Start the time."""
        self.patience = patience
        self.log = log
        self.deadline = time.monotonic() + patience.total
        self._cancel = cancel

    def check(self) -> None:
        """Raise ModelUnavailable when it was cancelled or the time is over."""
        if self._cancel.is_set():
            raise ModelUnavailable("the download was cancelled; a new start goes on from there")
        if time.monotonic() >= self.deadline:
            raise ModelUnavailable(
                "the model did not arrive within MODEL_DOWNLOAD_TIMEOUT "
                f"({self.patience.total:g} s); a new start goes on from there"
            )

    def wait(self, seconds: float) -> None:
        """Let time pass, at most to the deadline; raises as `check` does."""
        self._cancel.wait(min(seconds, max(0.0, self.deadline - time.monotonic())))
        self.check()


def persist(
    attempt: Callable[[], Result], clock: Clock, *, what: str, progress: Callable[[], int]
) -> Result:
    """Call attempt until it works; attempts count anew when `progress` has grown meanwhile.

    Refused is raised when it is no passing fault, still there after the last attempt, or asks for
    a longer pause than is kept; Broken becomes ModelUnavailable with the cause.
    """
    failed, reached = 0, progress()
    while True:
        clock.check()
        try:
            return attempt()
        except (Refused, Broken) as error:
            failed, reached = (1, progress()) if progress() > reached else (failed + 1, reached)
            pause = _pause(error, failed, clock.patience)
            if failed < clock.patience.attempts and pause is not None:
                clock.log(f"{what} broke off: {error}; going on in {pause:g} s")
                clock.wait(pause)
                continue
            if isinstance(error, Refused):
                raise
            raise ModelUnavailable(f"{what} failed: {error}; try again later") from error


def _pause(error: Refused | Broken, failed: int, patience: Patience) -> float | None:
    """Seconds to wait before the next attempt, None when there should be none."""
    pause = min(float(patience.pause * 2 ** (failed - 1)), patience.longest_pause)
    if isinstance(error, Broken):
        return pause
    if not error.passing or (error.retry_after or 0.0) > patience.longest_pause:
        return None
    return max(pause, error.retry_after or 0.0)
