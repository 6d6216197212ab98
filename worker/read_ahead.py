"""Reads the model's files into the page cache while the engine is still importing.

An engine maps its weights and takes them page by page. Read in a row, from the moment of
its spawn, the first of them are there when it comes to them: docs/performance.md has the figures.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from worker.joblog import logger
from worker.model_files import parts_of

_CHUNK_BYTES = 4 << 20
# What a fast disk gives while an engine is importing. Then the engine reads itself, and two who
# read the same large file get it later than one.
_MOST_BYTES = 1 << 30
# Of the memory that is available. What does not fit would be dropped before the engine gets to it.
_SHARE = 0.7
_WEIGHTS = (".safetensors",), (".bin", ".pt")
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def start_reading(
    model: Path, *, until: Callable[[], bool], available: Callable[[], int] | None = None
) -> threading.Thread:
    """Read the model's files in a thread of its own, until the engine needs that no more.

    available: bytes of memory. It can't hurt: it copies nothing (files that are in the cache
    already take 0.03 s a GB), ends after the first GB, and quietly at whatever fault, as it does at
    once on systems without Linux's sendfile. Its priority is the usual one: a thread of a lower
    one, put off in the middle of a request, would make the engine wait for those pages.
    """
    arguments = (model, until, available or available_memory)
    thread = threading.Thread(target=_read, args=arguments, name="read-ahead", daemon=True)
    thread.start()
    return thread


def weight_files(model: Path) -> list[Path]:
    """The files that hold the weights of a model, which is a GGUF file or a folder."""
    if not model.is_dir():
        return parts_of(model)
    files = sorted(model.iterdir())
    found = ([path for path in files if path.suffix in suffixes] for suffixes in _WEIGHTS)
    return next(filter(None, found), [])


def read(files: Sequence[Path], until: Callable[[], bool], most: int) -> int:
    """Read files into the page cache, without a copy of them; the bytes that were read.

    most: bytes after which it ends, to the next chunk. Raises OSError.
    """
    done = 0
    with Path(os.devnull).open("wb") as nowhere:
        for path in files:
            with path.open("rb") as file:
                offset = 0
                while done < most and not until():
                    count = os.sendfile(nowhere.fileno(), file.fileno(), offset, _CHUNK_BYTES)
                    if not count:
                        break
                    offset += count
                    done += count
    return done


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that may be used: of the machine, and of the container if it has a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max), and version 1's files. Raises
    OSError or ValueError when the machine does not tell.
    """
    lines = (line.split() for line in meminfo.read_text().splitlines())
    room = next(1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            in_container = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
            room = min(room, in_container)
    return room


def _read(model: Path, until: Callable[[], bool], available: Callable[[], int]) -> None:
    """Do it all; the thread's own."""
    try:
        files = weight_files(model)
        size = sum(path.stat().st_size for path in files)
        if size > _SHARE * available():
            logger.info("the weights are not read ahead: they would take most of the memory")
            return
        started = time.monotonic()
        done = read(files, until, _MOST_BYTES)
    except (OSError, ValueError, StopIteration) as error:
        logger.debug("the weights are not read ahead: %s", error)
    else:
        seconds = time.monotonic() - started
        logger.debug("%.1f of %.1f MB were read ahead in %.2f s", done / 1e6, size / 1e6, seconds)
