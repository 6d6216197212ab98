"""Accidents with an engine that misbehaves, and a machine that is full or tells a wrong time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.cases import MIDDLE, SHORT, Accident, seen
from chaos.mischief import MARK, MISCHIEF, fill
from chaos.stage import Stage

# https://github.com/wolfcw/libfaketime; Debian's package faketime
_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
_JUMPS = ("+30d", "-30d", "+0")
_TWICE = ("crashes", "CUDA error")
_FULL = Path("/dev/full")


@contextmanager
def hostile() -> Iterator[list[Accident]]:
    """All of them, as far as this machine can do them; what they need is there meanwhile."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = _small_disk(stack, folder)
        yield [
            *(_misbehaves(name, disk or folder) for name in MISCHIEF),
            *(_repeats(name) for name in _TWICE),
            *(_starts(fault, folder) for fault in ("hangs", "logs", "fails")),
            Accident("engine and worker print into a full disk", _engine_killed, log=str(_FULL)),
            _on_a_full_disk(disk),
            *_on_a_wrong_clock(folder),
        ]


def _misbehaves(name: str, disk: Path) -> Accident:
    async def happen(stage: Stage) -> str:
        policy = {"executionTimeout": 5000} if name.startswith("slow") else None
        prompt = f"{MARK}{name}"
        return await seen(stage, await stage.run("/generate", prompt=prompt, policy=policy))

    return Accident(f"engine: {name}", happen, {"TMPDIR": str(disk)}, stand_in=True)


def _repeats(name: str) -> Accident:
    async def happen(stage: Stage) -> str:
        for _ in range(2):
            await stage.result(await stage.run("/generate", prompt=f"{MARK}{name}"))
        return await seen(stage, await stage.run("/generate", prompt=f"{MARK}{name}"))

    return Accident(f"engine: {name}, the same request a third time", happen, stand_in=True)


def _starts(fault: str, folder: Path) -> Accident:
    async def happen(stage: Stage) -> str:
        return await seen(stage, await stage.run("/generate", **SHORT))

    settings = {"GGML_CHAOS_START": f"{fault}:{folder / fault}", "ENGINE_START_TIMEOUT": "5"}
    text = {
        "hangs": "hangs on load",
        "logs": "prints 1 GB of log on load",
        "fails": "fails to load",
    }
    name = f"engine: {text[fault]}, once (5 s for the start)"
    return Accident(name, happen, settings, stand_in=True, well_before=False)


async def _engine_killed(stage: Stage) -> str:
    job = await stage.run("/generate", stream=True, **MIDDLE)
    await stage.until_streaming(job)
    stage.strike([await stage.until_engine()], signal.SIGKILL)
    return await seen(stage, job)


def _small_disk(stack: ExitStack, folder: Path) -> Path | None:
    """Mount a disk of 5 MB; only root can, None for everybody else."""
    if os.geteuid() != 0:
        return None
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], check=True)  # noqa: S607
    stack.callback(_unmount, disk)
    return disk


def _on_a_full_disk(disk: Path | None) -> Accident:
    if disk is None:
        return _not_here("a full disk in mid-run", "only root can mount a small disk")

    async def happen(stage: Stage) -> str:
        await asyncio.to_thread(fill, disk)
        return await _engine_killed(stage)

    settings = {"TMPDIR": str(disk), "HOME": str(disk)}
    return Accident("a full disk in mid-run, then engine SIGKILL", happen, settings)


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", "--lazy", disk], check=True)  # noqa: S607


def _on_a_wrong_clock(folder: Path) -> list[Accident]:
    """Clocks that jump under the worker, one at rest and one while it generates."""
    if not Path(_FAKETIME).exists():
        return [_not_here("the clock jumps", "libfaketime is not installed")]
    clock = folder / "clock"
    clock.write_text("+0")
    settings = {
        "LD_PRELOAD": _FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return [Accident("the clock jumps 30 days ahead and back, mid-stream", _jumps(clock), settings)]


def _jumps(clock: Path) -> Callable[[Stage], Awaitable[str]]:
    async def happen(stage: Stage) -> str:
        job = await stage.run("/generate", stream=True, **MIDDLE)
        await stage.until_streaming(job)
        for jump in _JUMPS:
            await asyncio.to_thread(clock.write_text, jump)
            await stage.until_next_chunk(job)
        return await seen(stage, job)

    return happen


def _not_here(name: str, why: str) -> Accident:
    async def happen(_stage: Stage) -> str:
        return f"NOT RUN: {why}"

    return Accident(name, happen, stand_in=True)
