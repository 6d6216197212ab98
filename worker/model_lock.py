"""One download at a time among workers that share a folder, on any file system.

filelock's lease: a file made with O_EXCL (network file systems have no reliable flock) that its
owner touches. Others take it over when it stays untouched too long by their own clock, or at once
when its owner was a process of the same machine and is dead.
https://py-filelock.readthedocs.io/en/latest/api.html#filelock.SoftFileLease
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from worker.model_errors import ModelUnavailable


@dataclass(frozen=True, slots=True)
class LockTimes:
    """Seconds: between touches, until an untouched lock is taken over, and between looks at it.

    All workers that share a folder must have the same `stale`.
    """

    beat: float = 3.0
    stale: float = 20.0
    look: float = 1.0


class LockLost(Exception):
    """Another worker took the lock over: this process was stopped or cut off for too long."""


class FolderLock:
    """Held from `with` to its end; `check` before each write that only the owner may do."""

    def __init__(
        self, path: Path, *, deadline: float, times: LockTimes, waiting: Callable[[], None]
    ) -> None:
        """Take no lock yet; deadline is on the monotonic clock, waiting is called at each look."""
        self._lease = SoftFileLease(path, lease_duration=times.stale, heartbeat_interval=times.beat)
        self._deadline = deadline
        self._times = times
        self._waiting = waiting
        self._checked = 0.0

    def __enter__(self) -> FolderLock:
        """Wait for the lock; ModelUnavailable at the deadline."""

        def go_on() -> bool:
            self._waiting()
            return False

        try:
            self._lease.acquire(
                timeout=max(0.0, self._deadline - time.monotonic()),
                poll_interval=self._times.look,
                cancel_check=go_on,
            )
        except (Timeout, LeaseSettingsMismatch) as error:
            raise ModelUnavailable(
                "another worker is still downloading the model; try again or raise "
                "MODEL_DOWNLOAD_TIMEOUT"
            ) from error
        self._checked = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, if it is still ours."""
        self._lease.release()

    def check(self) -> None:
        """Make sure that the lock is ours; it looks once in a beat. LockLost if it is not.

        The lease's own thread sees a loss only some beats after this process was frozen and thawed.
        """
        now = time.monotonic()
        if now - self._checked < self._times.beat:
            return
        if not self._lease.is_lock_held_by_us:
            raise LockLost("the lock is another worker's")
        self._checked = now
