"""What a result was measured on, in general words; and what processes use, read from /proc."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, object]:
    """The processor, Python and load; no names of the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "load_average": load(),
    }


def load() -> float:
    """Processes that ran or wanted to in the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> float:
    """A process's proportional set size: pages shared by n processes count 1/n in each."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1000


def peak_mb(pid: int) -> float:
    """The largest resident size since the start or `forget_peak`."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") / 1000


def resident_mb(pid: int) -> float:
    """The resident size."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:") / 1000


def forget_peak(pid: int) -> None:
    """Begin a new measurement of the largest resident size (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def children(pid: int) -> list[int]:
    """Ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def command(pid: int) -> str:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _kilobytes(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) * 1.024
    raise ValueError(f"{path} has no {name}")
