"""One file from a server to a folder: resumed, checked while it arrives, named only when whole.

What has arrived is in `<name>.part`; the process may be killed at any time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.model_check import digest
from worker.model_errors import ModelUnavailable
from worker.model_http import Answer, get
from worker.model_retry import Broken, Clock, Refused, persist

PART = ".part"
_BLOCK = 1 << 20
_RANGE_REFUSED = 416
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch; size and digests as far as they are known; headers may hold the token."""

    url: str = field(repr=False)
    name: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hasher(self) -> Any:
        """A hashlib object for the digest that is known, None when there is none."""
        if self.sha256 is not None:
            return hashlib.sha256()
        if self.git_sha1 is not None:
            # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
            return hashlib.sha1(b"blob %d\0" % (self.size or 0), usedforsecurity=False)
        return None


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows a download: `alive` before each write (may raise), `arrived` with new bytes.

    room: raises ModelUnavailable when so many bytes do not fit.
    """

    alive: Callable[[], None]
    arrived: Callable[[str, int], None]
    room: Callable[[int], None]


def fetch(remote: Remote, to: Path, clock: Clock, watch: Watch) -> None:
    """Bring the file to `to`, from its part if there is one.

    Bytes that are wrong are fetched once more from the start if some of them were left from
    before. Raises Refused for the caller to explain, and ModelUnavailable.
    """
    with disk_faults(remote.name):
        to.parent.mkdir(parents=True, exist_ok=True)
        with _Part(to.with_name(to.name + PART), remote, watch) as part:
            resumed = part.size > 0
            _fill(part, remote, clock, watch)
            if resumed and not part.right:
                part.reset()
                _fill(part, remote, clock, watch)
            if not part.right:
                part.discard()
                raise ModelUnavailable(
                    f"the file {remote.name} is damaged: its checksum is wrong; it was discarded"
                )
            part.finish(to)


@contextmanager
def disk_faults(name: str) -> Iterator[None]:
    """Turn faults of the disk into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ModelUnavailable(
                f"the disk is full: the file {name} can't be written; use a larger disk or volume"
            ) from error
        raise ModelUnavailable(
            f"the file {name} could not be written ({error.strerror or 'unknown fault'})"
        ) from error


class _Part:
    """The bytes that have arrived, with their running digest."""

    def __init__(self, path: Path, remote: Remote, watch: Watch) -> None:
        """Open the part, going on where a former start ended."""
        self._path, self._remote, self._watch = path, remote, watch
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), "ab", 0)
        self.size = path.stat().st_size
        self._hasher = remote.hasher()
        if self._hasher is not None and self.size:
            digest(path, self._hasher, watch.alive)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    @property
    def right(self) -> bool:
        """Whether the digest is what it must be, as far as one is known."""
        wanted = self._remote.sha256 or self._remote.git_sha1
        return self._hasher is None or self._hasher.hexdigest() == wanted

    def write(self, data: bytes) -> None:
        """Append bytes, all of them."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(data)
        if self._hasher is not None:
            self._hasher.update(data)

    def reset(self) -> None:
        """Start again from nothing."""
        self._file.truncate(0)
        self.size, self._hasher = 0, self._remote.hasher()

    def discard(self) -> None:
        """Leave nothing for a later start."""
        self._path.unlink()

    def finish(self, to: Path) -> None:
        """Give the whole file its name, once its bytes are on the disk."""
        os.fsync(self._file.fileno())
        self._watch.alive()
        self._path.replace(to)


def _fill(part: _Part, remote: Remote, clock: Clock, watch: Watch) -> None:
    """Fetch until the part has all its bytes."""

    def attempt() -> None:
        if remote.size is not None and part.size > remote.size:
            part.reset()
        if part.size == remote.size:
            return
        try:
            with get(remote.url, remote.headers, part.size, clock.patience.stall) as answer:
                _receive(answer, part, remote, clock, watch)
        except Refused as error:
            if error.status != _RANGE_REFUSED:
                raise
            part.reset()
            raise Broken("the server does not have the rest of the file") from None

    what = f"the download of {remote.name}"
    persist(attempt, clock, what=what, progress=lambda: part.size)


def _receive(answer: Answer, part: _Part, remote: Remote, clock: Clock, watch: Watch) -> None:
    """Write what comes; Broken when it is not the size that it must be."""
    if answer.start != part.size:
        part.reset()
    total = answer.total if remote.size is None else remote.size
    if total is None:
        raise ModelUnavailable(f"the server does not say how large {remote.name} is; use another")
    if answer.total not in {None, total}:
        raise Broken(f"the server has {answer.total} bytes of a file of {total}")
    if answer.start not in {0, part.size}:
        raise Broken("the server's answer makes no sense")
    watch.room(total - part.size)
    while part.size < total:
        data = answer.read(min(_BLOCK, total - part.size))
        if not data:
            raise Broken(f"the connection ended after {part.size} of {total} bytes")
        clock.check()
        watch.alive()
        part.write(data)
        watch.arrived(remote.name, len(data))
