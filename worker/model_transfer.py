"""The download of one model: one worker at a time, room first, weights last, then the name."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from worker.model_check import check, file_fault
from worker.model_download import PART, Remote, Watch, disk_faults, fetch
from worker.model_errors import ModelUnavailable
from worker.model_files import Listed, choose
from worker.model_hub import Hub, connected, explain, file_url, listing, xet_data
from worker.model_lock import LockLost, LockTimes, folder_lock
from worker.model_places import Places, find, keep, repository_folder, url_file
from worker.model_progress import Progress, size_text
from worker.model_retry import Clock, Patience, Refused
from worker.model_source import Repository, Url

if TYPE_CHECKING:
    from worker.model_fetch import Limits, Log

_LOCK = ".lock"


class Transfer:
    """Downloads one model; `run` once."""

    def __init__(
        self,
        source: Repository | Url,
        places: Places,
        *,
        hub: Hub | None,
        log: Log,
        cancel: threading.Event,
        limits: Limits,
    ) -> None:
        """Start the time of the whole download."""
        self._source, self._places, self._hub = source, places, hub or Hub()
        self._log, self._limits = log, limits
        self._clock = Clock(limits.patience or Patience(), cancel, log)
        self._said = float("-inf")

    def run(self) -> Path:
        """Download, or wait until another worker has; raises ModelUnavailable."""
        folder = self._folder()
        with disk_faults(folder.name):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                self._clock.check()
                try:
                    return self._locked(folder)
                except LockLost:
                    self._log("another worker took the download over; waiting for it")

    def _folder(self) -> Path:
        """The folder of this model; its lock is in it."""
        if isinstance(self._source, Url):
            return url_file(self._places.downloads, self._source).parent
        return repository_folder(self._places.downloads, self._source.id)

    def _locked(self, folder: Path) -> Path:
        """Take the lock; the model may be there by then."""
        with folder_lock(
            folder / _LOCK,
            deadline=self._clock.deadline,
            times=self._limits.lock or LockTimes(),
            waiting=self._wait,
        ) as check_lock:
            found = find(self._source, self._places.only_downloads(), _say_nothing)
            if found is not None:
                return found

            def alive() -> None:
                self._clock.check()
                check_lock()

            with connected(self._hub, self._clock, alive):
                if isinstance(self._source, Url):
                    return self._url(self._source, alive)
                return self._repository(self._source, folder, alive)

    def _wait(self) -> None:
        """Another worker has the lock."""
        self._clock.check()
        if time.monotonic() - self._said >= self._limits.line_every:
            self._said = time.monotonic()
            self._log("another worker is downloading the model; waiting for it")

    def _url(self, source: Url, alive: Callable[[], None]) -> Path:
        """Fetch the one file of a URL."""
        path = url_file(self._places.downloads, source)
        remote = Remote(source.url, source.name, sha256=source.sha256)
        self._log(f"downloading {source.name}")
        try:
            fetch(remote, path, self._clock, self._watch(path.parent, alive, 0))
        except Refused as error:
            raise ModelUnavailable(
                f"the server refused {source.name} with status {error.status}; check the URL"
            ) from error
        check(path, thorough=True)
        return path

    def _repository(self, source: Repository, folder: Path, alive: Callable[[], None]) -> Path:
        """Fetch what is missing of a repository's model, then let its revision point to it."""
        listed = listing(source, self._hub, self._clock)
        chosen = choose(listed.files, source.pattern, projector=source.projector)
        snapshot = folder / "snapshots" / listed.commit
        missing = [file for file in chosen.files if _missing(snapshot, file)]
        left = sum(file.size - _part_size(snapshot, file) for file in missing)
        self._room(folder, left)
        there = sum(file.size for file in missing) - left
        kept = f", {size_text(there)} are there already" if there else ""
        self._log(f"downloading {source.id}: {len(missing)} files, {size_text(left)}{kept}")
        self._fetch_all(source, listed.commit, missing, snapshot, self._watch(folder, alive, left))
        path = snapshot / chosen.main if chosen.main else snapshot
        check(path, thorough=True)
        alive()
        keep(self._places.downloads, source, listed.commit, listed.files)
        return path

    def _fetch_all(
        self,
        source: Repository,
        commit: str,
        files: Sequence[Listed],
        snapshot: Path,
        watch: Watch,
    ) -> None:
        """Fetch files one after the other, weights last."""
        for file in files:
            url = file_url(source, commit, file.path, self._hub)
            remote = Remote(
                url,
                Path(file.path).name,
                file.size,
                file.sha256,
                file.git_sha1,
                self._hub.headers,
                partial(xet_data if file.sha256 else _nowhere, url, self._hub),
            )
            try:
                fetch(remote, snapshot / file.path, self._clock, watch)
            except Refused as error:
                token = bool(self._hub.token)
                raise ModelUnavailable(explain(error, source, with_token=token)) from error

    def _watch(self, folder: Path, alive: Callable[[], None], left: int) -> Watch:
        """Follow a download: log lines, see that there is room."""
        progress = Progress(self._log, left, every=self._limits.line_every)

        def room(count: int) -> None:
            progress.left = max(progress.left, count)
            self._room(folder, count)

        return Watch(alive, progress.arrived, room)

    def _room(self, folder: Path, needed: int) -> None:
        """See that so many bytes fit."""
        free = (self._limits.free or free_space)(folder)
        if needed > free:
            raise ModelUnavailable(
                f"the model does not fit on the disk: it needs {size_text(needed)} more and "
                f"{size_text(free)} are free; use a larger disk or volume"
            )


def _say_nothing(_line: str) -> None:
    """What is not complete was logged before the lock was taken."""


def _nowhere(_url: str, _hub: Hub) -> None:
    """Small files are in no Xet storage."""


def free_space(folder: Path) -> int:
    """Bytes that can be written on a folder's disk."""
    return shutil.disk_usage(folder).free


def _missing(snapshot: Path, file: Listed) -> bool:
    """Whether a file is to be fetched: what has its name was checked when it got it."""
    path = snapshot / file.path
    return (
        not path.is_file()
        or path.stat().st_size != file.size
        or (file.size > 0 and file_fault(path) is not None)
    )


def _part_size(snapshot: Path, file: Listed) -> int:
    """Bytes that a former start left."""
    path = snapshot / (file.path + PART)
    return min(path.stat().st_size, file.size) if path.is_file() else 0
