"""What a process group has used of the processor, as the kernel counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, counted after the name in brackets
_GROUP, _USER, _SYSTEM = 2, 11, 12


def group_seconds(group: int, proc: Path = Path("/proc")) -> float | None:
    """Seconds of processor time of all processes of a group; None where there is no /proc.

    One that has ended is left out, so the sum may fall.
    """
    tick = os.sysconf("SC_CLK_TCK")
    total: int | None = None
    with suppress(OSError):
        for entry in os.scandir(proc):
            if entry.name.isdigit():
                total = (total or 0) + _ticks(Path(entry.path), group)
    return None if total is None else total / tick


def _ticks(process: Path, group: int) -> int:
    """The ticks of one process, 0 if it is of another group or gone."""
    try:
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        if int(fields[_GROUP]) != group:
            return 0
        return int(fields[_USER]) + int(fields[_SYSTEM])
    except (OSError, ValueError, IndexError):
        return 0
