"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity, or fewer when the container's quota is lower; at least 1.

    More threads than the quota has cores make llama.cpp wait for its own paused threads.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Read the container's limit in cores, None without one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and version 1's two files.
    """
    version2 = _words(cgroup / "cpu.max")
    version1 = _words(cgroup / "cpu/cpu.cfs_quota_us") + _words(cgroup / "cpu/cpu.cfs_period_us")
    try:
        limit, period = (float(word) for word in version2 or version1)
    except ValueError:  # no such files, or "max"
        return None
    return limit / period if limit > 0 and period > 0 else None


def _words(path: Path) -> list[str]:
    """Read a small file's words, none when it can't be read."""
    try:
        return path.read_text().split()
    except OSError:
        return []
