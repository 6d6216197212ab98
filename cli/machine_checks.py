"""Checks of the machine: Python, processor, libraries, memory, disk, GPU."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from cli.check import Check, bad, note, ok

_ROOT = Path(__file__).resolve().parent.parent
_GIGABYTE = 1e9
_MIN_MEMORY = 1.0 * _GIGABYTE
_MIN_DISK = 1.0 * _GIGABYTE
_SMI_SECONDS = 10.0
_PACKAGES = ("aiohttp", "runpod", "PyYAML", "rich", "xllamacpp")


def all_checks() -> list[Check]:
    """Every check of the machine."""
    return [python(), processor(), libgomp(), packages(), memory(), disk(_ROOT), gpu()]


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.10 or newer."""
    found = ".".join(map(str, version))
    if version < (3, 10):
        return bad("Python", found, "install Python 3.10 or newer, and set PYTHON to it")
    return ok("Python", found)


def processor(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = platform.machine()) -> Check:
    """AVX2 on x86-64, which the embedded engine is built for."""
    try:
        flags = cpuinfo.read_text("utf-8", "replace").split()
    except OSError:
        return note("processor", f"{machine}, flags unknown")
    if machine in ("x86_64", "AMD64") and "avx2" not in flags:
        return bad(
            "processor",
            f"{machine} without AVX2",
            "the embedded engine needs it: use a machine of 2013 or later",
        )
    return ok("processor", f"{machine}, {flags.count('processor')} cores")


def libgomp(library: str = "libgomp.so.1") -> Check:
    """The library that llama.cpp is linked against, which slim images lack."""
    if not sys.platform.startswith("linux"):
        return note("libgomp", "not needed here")
    try:
        ctypes.CDLL(library)
    except OSError:
        return bad("libgomp", f"{library} is missing", "on Debian: apt-get install libgomp1")
    return ok("libgomp", library)


def packages(names: tuple[str, ...] = _PACKAGES) -> Check:
    """The packages that the worker and this command line import."""
    missing, found = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = "run scripts/setup, or use the image's own Python (WORKER_PYTHON)"
        return bad("packages", f"missing: {', '.join(missing)}", advice)
    return ok("packages", ", ".join(found))


def memory(
    meminfo: Path = Path("/proc/meminfo"),
    limit: Path = Path("/sys/fs/cgroup/memory.max"),
) -> Check:
    """Memory that is available, within the container's limit."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text("utf-8").splitlines())
        available = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return note("memory", "unknown here")
    capped = _container_limit(limit)
    found = f"{available / _GIGABYTE:.1f} GB available"
    if capped is not None:
        available, found = min(available, capped), f"{found}, limit {capped / _GIGABYTE:.1f} GB"
    if available < _MIN_MEMORY:
        return bad("memory", found, "end other programs, or give the container more memory")
    return ok("memory", found)


def _container_limit(path: Path) -> float | None:
    """The control group's limit in bytes, None without one."""
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def disk(folder: Path, least: float = _MIN_DISK) -> Check:
    """Room for the environment and a model."""
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIGABYTE:.1f} GB free for the project"
    if free < least:
        return note("disk", found, "free some: a set-up needs 1 GB, and a model its own size")
    return ok("disk", found)


def gpu(command: str = "nvidia-smi") -> Check:
    """NVIDIA GPUs, as the driver's own tool lists them."""
    path = shutil.which(command)
    if path is None:
        return note("GPU", "none (no nvidia-smi): models run on the processor")
    query = [path, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        advice = "reinstall the driver; in a container: start it with --gpus all"
        return bad("GPU", f"{command} fails", advice)
    return ok("GPU", "; ".join(answer.stdout.split("\n")).strip("; ") or "none listed")
