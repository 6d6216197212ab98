"""A lock among workers that share a folder, on any file system.

Network file systems have no reliable flock: the lock is a file made with O_EXCL that its owner
touches. Others break it when it stays untouched too long by their own clock, so clocks that differ
do no harm. Creating a file with O_EXCL is atomic on NFS 3 and later (open(2)).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from worker.model_errors import ModelUnavailable


@dataclass(frozen=True, slots=True)
class LockTimes:
    """Seconds: between touches, until an untouched lock is broken, and between looks at it."""

    beat: float = 3.0
    stale: float = 20.0
    look: float = 1.0


class LockLost(Exception):
    """Another worker broke the lock: this process was stopped or cut off for too long."""


class FolderLock:
    """Held from `with` to its end; `check` before each write that only the owner may do."""

    def __init__(
        self, path: Path, *, deadline: float, times: LockTimes, waiting: Callable[[], None]
    ) -> None:
        """Take no lock yet; deadline is on the monotonic clock, waiting is called at each look."""
        self._path = path
        self._deadline = deadline
        self._times = times
        self._waiting = waiting
        self._owner = uuid.uuid4().hex
        self._touched = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="model-lock", daemon=True)

    def __enter__(self) -> FolderLock:
        """Wait for the lock, breaking a stale one; ModelUnavailable at the deadline."""
        seen, since, tried = "", time.monotonic(), False
        while not self._take():
            mark, now = self._mark(), time.monotonic()
            if mark != seen:
                seen, since, tried = mark, now, False
            elif mark and now - since >= self._times.stale:
                self._break(mark, again=tried)
                since, tried = now, True
                continue
            if now >= self._deadline:
                raise ModelUnavailable(
                    "another worker is still downloading the model; try again or raise "
                    "DOWNLOAD_TIMEOUT"
                )
            self._waiting()
            self._end.wait(min(self._times.look, max(0.0, self._deadline - now)))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, if it is still ours."""
        self._end.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Make sure that the lock is ours; cheap while it was touched lately. LockLost if not."""
        if time.monotonic() - self._touched > 2 * self._times.beat:
            self._touch()

    def _take(self) -> bool:
        """Make the file; False when there is one."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(self._owner)
        self._touched = time.monotonic()
        return True

    def _touch(self) -> None:
        """Show that the owner lives."""
        if not self._is_ours():
            raise LockLost("the lock is another worker's")
        os.utime(self._path)
        self._touched = time.monotonic()

    def _beat(self) -> None:
        """Touch the file until the end; a lost lock is found by `check`."""
        while not self._end.wait(self._times.beat):
            with suppress(OSError, LockLost):
                self._touch()

    def _is_ours(self) -> bool:
        """Whether the file is there and has our name in it."""
        return _read(self._path) == self._owner

    def _mark(self) -> str:
        """Owner and time of the last touch, "" when there is no lock."""
        try:
            return f"{self._path.stat().st_mtime_ns} {_read(self._path)}"
        except FileNotFoundError:
            return ""

    def _break(self, mark: str, *, again: bool = False) -> None:
        """Remove the lock if it still is the stale one; only one breaks it at a time.

        Without that, one who judged too long ago would remove the lock of a new owner. again: the
        lock outlived a first try, so whoever was breaking it died and is not waited for any more.
        """
        breaking = self._path.with_name(f"{self._path.name}.break")
        if again:
            breaking.unlink(missing_ok=True)
        try:
            os.close(os.open(breaking, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return
        if self._mark() == mark:
            self._path.unlink(missing_ok=True)
        breaking.unlink(missing_ok=True)


def _read(path: Path) -> str:
    """The owner that a lock names, "" when it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
