"""An emulator with a fake worker, and the command line as a process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Emulator, running_emulator
from tests.emulator.helpers import FAST
from tests.fake_worker import FakeWorker, fake_worker

ROOT = Path(__file__).parent.parent.parent
SECONDS = 30.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed last."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Cli:
    """Runs commands against an emulator."""

    emulator: Emulator
    worker: FakeWorker

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """Start a command."""
        url = self.emulator.url + "/v2"
        names = ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", *arguments, "--url", url),
            cwd=ROOT,
            env={**clean, **environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> Done:
        """Run a command to its end."""
        process = await self.start(*arguments, **environ)
        return await finish(process, stdin)


async def finish(process: asyncio.subprocess.Process, stdin: str = "") -> Done:
    """Wait for a command's end."""
    try:
        told = stdin.encode() if process.stdin else None
        out, err = await asyncio.wait_for(process.communicate(told), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, (out or b"").decode(), err.decode())


@pytest.fixture
async def cli() -> AsyncIterator[Cli]:
    async with running_emulator(limits=FAST) as emulator, fake_worker(emulator) as worker:
        yield Cli(emulator, worker)
