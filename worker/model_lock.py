"""One download at a time among workers that share a folder, on any file system.

filelock's lease: a file made with O_EXCL (network file systems have no reliable flock) that its
owner touches. Others take it over when it stays untouched too long by their own clock, or at once
when its owner was a process of the same machine and is dead.
https://py-filelock.readthedocs.io/en/latest/api.html#filelock.SoftFileLease
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@contextmanager
def folder_lock(
    path: Path, *, deadline: float, times: LockTimes, waiting: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Hold the lock within the block, once nobody else does.

    deadline: on the monotonic clock. waiting: called at each look, may raise. Gives a check for
    before each write that only the owner may do: it raises LockLost when another has it. It looks
    once in a beat; the lease's own thread sees a loss only some beats after this process was frozen
    and thawed. Raises ModelUnavailable at the deadline.
    """
    lease = SoftFileLease(path, lease_duration=times.stale, heartbeat_interval=times.beat)

    def go_on_waiting() -> bool:
        waiting()
        return False

    left = max(0.0, deadline - time.monotonic())
    try:
        lease.acquire(timeout=left, poll_interval=times.look, cancel_check=go_on_waiting)
    except (Timeout, LeaseSettingsMismatch) as error:
        raise ModelUnavailable(
            "another worker is still downloading the model; try again or raise "
            "MODEL_DOWNLOAD_TIMEOUT"
        ) from error
    checked = time.monotonic()

    def check() -> None:
        nonlocal checked
        now = time.monotonic()
        if now - checked < times.beat:
            return
        if not lease.is_lock_held_by_us:
            raise LockLost("the lock is another worker's")
        checked = now

    try:
        yield check
    finally:
        lease.release()
