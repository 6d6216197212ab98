"""One file from a server to a folder: resumed, checked while it arrives, named only when whole.

The transfer is huggingface_hub's. What has arrived is in `<name>.part`, in order; the process may
be killed at any time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from worker.model_check import digest
from worker.model_errors import ModelUnavailable
from worker.model_retry import Broken, Clock, Refused, persist

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetFileData

PART = ".part"
_RANGE_REFUSED = 416
# https://github.com/huggingface/huggingface_hub: MAX_HTTP_DOWNLOAD_SIZE; larger ones need Xet.
_MOST_OVER_HTTP = 50_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file to fetch; size and digests as far as they are known; headers may hold the token.

    xet: tells whether the file is in Xet storage; raises Refused and Broken.
    """

    url: str = field(repr=False)
    name: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    xet: Callable[[], XetFileData | None] = lambda: None

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
    """Who follows a download: `alive` before each write and `arrived` after it; both may raise.

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
                part.truncate()
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
    """The bytes that have arrived, with their running digest; the library writes to it."""

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
        """Whether the digest is what it must be, as far as one is known.

        The file's own size tells whether somebody else wrote to it too.
        """
        wanted = self._remote.sha256 or self._remote.git_sha1
        if os.fstat(self._file.fileno()).st_size != self.size:
            return False
        return self._hasher is None or bool(self._hasher.hexdigest() == wanted)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing; of a file of unknown size its digest tells."""
        if self._remote.size is None:
            return self.size > 0 and self.right
        return self.size == self._remote.size

    def expect_all(self) -> None:
        """Raise Broken when bytes are missing."""
        if self._remote.size is not None and self.size != self._remote.size:
            raise Broken(f"the server sent only {self.size} bytes of the file")

    def write(self, data: bytes) -> int:
        """Append bytes, all of them."""
        self._watch.alive()
        if self._remote.size is not None and self.size + len(data) > self._remote.size:
            raise Broken(f"the server sends more than the {self._remote.size} bytes of the file")
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(data)
        if self._hasher is not None:
            self._hasher.update(data)
        self._watch.arrived(self._remote.name, len(data))
        return len(data)

    def tell(self) -> int:
        """Where the next bytes go."""
        return self.size

    def seek(self, to: int) -> int:
        """The library goes to the beginning only, when a server sends the whole file again."""
        return to

    def truncate(self) -> None:
        """Start again from nothing."""
        self._watch.alive()
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
    ways = [_over_xet, _over_http]
    if (remote.size or 0) > _MOST_OVER_HTTP:
        ways.pop()

    def attempt() -> None:
        if remote.size is not None and part.size > remote.size:
            part.truncate()
        if part.whole:
            return
        try:
            ways[0](part, remote, clock, watch)
            part.expect_all()
        except Broken:
            # The other way leads to the same bytes: a network may forbid one of the two.
            ways.reverse()
            raise

    persist(attempt, clock, what=f"the download of {remote.name}", progress=lambda: part.size)


def _over_xet(part: _Part, remote: Remote, clock: Clock, watch: Watch) -> None:
    """Fetch what is missing in parallel, if the file is in Xet storage; else over plain HTTP."""
    try:
        file = remote.xet()
    except Refused:
        file = None  # the request for the bytes tells why, or is not refused
    if file is None or remote.size is None:
        _over_http(part, remote, clock, watch)
        return
    from worker.model_xet import blocks  # noqa: PLC0415 - it imports the library

    stall = clock.patience.stall
    stream = blocks(file, remote.size, remote.headers, start=part.size, stall=stall)
    with closing(stream):
        for block in stream:
            part.write(block)


def _over_http(part: _Part, remote: Remote, _clock: Clock, watch: Watch) -> None:
    """Fetch what is missing with one request; a part that is of no use is emptied."""
    from huggingface_hub.file_download import http_get  # noqa: PLC0415 - takes half a second

    def bar(*, total: int | None, initial: int, **_look: Any) -> AbstractContextManager[Any]:
        """Take the place of the progress bar: it is told the size before the first byte."""
        if total is None:
            raise ModelUnavailable(
                f"the server does not say how large {remote.name} is; use another"
            )
        watch.room(total - initial)
        return nullcontext(SimpleNamespace(update=lambda _count: None))

    headers = {**remote.headers, "Accept-Encoding": "identity"}
    try:
        http_get(
            remote.url,
            cast(BinaryIO, part),
            resume_size=part.size,
            headers=headers,
            tqdm_class=cast(Any, bar),
        )
    except Refused as error:
        if error.status != _RANGE_REFUSED:
            raise
        part.truncate()
        raise Broken("the server does not have the rest of the file") from None
    except OSError as error:
        if error.errno is None:  # the library's own, when the bytes are fewer than was said
            raise Broken(f"the server sent only {part.size} bytes of the file") from None
        raise
