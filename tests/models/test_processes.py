"""Several workers, and workers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.models.conftest import BLOCK, LARGE, LARGE_FILE, MODEL, Machine
from tests.models.hub_server import Fault
from tests.models.times import QUICK
from worker.model_source import Repository

ROOT = Path(__file__).parents[2]
FILE = "tiny-Q4_K_M.gguf"
LIMIT = 15.0


@contextmanager
def worker(
    machine: Machine, model: str = "org/tiny", *, stall: float = QUICK.stall, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """A process that obtains the model."""
    arguments = [str(machine.root), machine.hub.url, model, str(stall)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.models.child", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def until_part_has(machine: Machine, size: int) -> None:
    """Wait for a part of so many bytes."""
    end = time.monotonic() + LIMIT
    while [size] != [part.stat().st_size for part in machine.parts()]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_workers_download_once(machine: Machine) -> None:
    with worker(machine) as one, worker(machine) as two:
        paths = {process.communicate(timeout=LIMIT)[0].splitlines()[0] for process in (one, two)}

    assert 1 == len(paths)
    assert [""] == machine.hub.gets(FILE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_download_is_resumed(
    machine: Machine, large: Repository, number: signal.Signals
) -> None:
    machine.hub.faults[LARGE_FILE].append(Fault("stall", BLOCK + 1))
    with worker(machine, "org/large") as process:
        until_part_has(machine, BLOCK)
        process.send_signal(number)
        assert -number == process.wait(5)

    assert [] == list(machine.root.rglob("*.gguf"))
    assert LARGE == machine.obtain(large).read_bytes()
    assert ["", f"bytes={BLOCK}-"] == machine.hub.gets(LARGE_FILE)


def test_a_model_on_the_disk_imports_nothing_heavy(machine: Machine) -> None:
    baked = machine.root / "baked"
    baked.mkdir()
    (baked / "a.gguf").write_bytes(MODEL)
    code = (
        "import sys; from pathlib import Path; from worker.model_fetch import obtain; "
        "from worker.model_places import places; from worker.model_source import parse; "
        "p = Path(sys.argv[1]); "
        "obtain(parse('a'), places=places(models_dir=None, baked=p, volume=p / 'v', local=p), "
        "hub=None, log=print); print(*sys.modules)"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code, str(baked)], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()

    heavy = {"huggingface_hub", "filelock", "httpx2", "ssl", "asyncio", "aiohttp"}
    assert set() == heavy & set(loaded.split())
