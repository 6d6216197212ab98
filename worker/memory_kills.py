"""How often the kernel has killed a process of this container for want of memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# https://docs.kernel.org/admin-guide/cgroup-v2.html: memory.events counts for all groups below, and
# the root of all groups has no such file. A container sees its own group at the mount's root.
_FILE = "memory.events"
_COUNT = "oom_kill "


def out_of_memory_kills(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The count so far; None where the kernel does not tell."""
    with suppress(OSError, ValueError):
        for line in (group / _FILE).read_text().splitlines():
            if line.startswith(_COUNT):
                return int(line[len(_COUNT) :])
    return None
