"""Every file in examples/ runs, as a reader would run it, against an emulator."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.server import running_emulator
from tests.emulator.helpers import FAST
from tests.fake_worker import TEXT, fake_worker

EXAMPLES = Path(__file__).parent.parent / "examples"
RUNNERS = {".py": sys.executable, ".mjs": "node", ".sh": "bash"}
FILES = sorted(path for path in EXAMPLES.glob("*/*") if path.suffix in RUNNERS)
SECONDS = 40.0


async def run(file: Path, url: str) -> tuple[int | None, str, str]:
    """Run an example; its exit code, stdout and stderr."""
    command = RUNNERS[file.suffix]
    for tool in {command} | ({"curl"} if file.suffix == ".sh" else set()):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    process = await asyncio.create_subprocess_exec(
        *(command, str(file)),
        env={**os.environ, "RUNPOD_URL": url, "RUNPOD_ENDPOINT_ID": "local"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


def streamed(out: str) -> str:
    """The text in the lines of JSON that the curl example prints."""
    return "".join(re.findall(r'"text": "([^"]*)"', out)).encode().decode("unicode_escape")


SHOWS: dict[str, Callable[[str], bool]] = {
    "python/generate.py": lambda out: out == f"{TEXT}\n",
    "python/stream.py": lambda out: out == f"{TEXT}\n",
    "python/chat.py": lambda out: out.count(TEXT) == 2,
    "python/openai_chat.py": lambda out: out == f"{TEXT}\n",
    "javascript/generate.mjs": lambda out: out == f"{TEXT}\n",
    "javascript/stream.mjs": lambda out: out == f"{TEXT}\n",
    "curl/generate.sh": lambda out: '"status": "COMPLETED"' in out,
    "curl/stream.sh": lambda out: streamed(out) == TEXT,
    "curl/cancel.sh": lambda out: '"status": "CANCELLED"' in out,
}


def test_every_example_is_tested_and_in_the_readme() -> None:
    names = [file.relative_to(EXAMPLES).as_posix() for file in FILES]

    readme = (EXAMPLES / "README.md").read_text("utf-8")
    assert sorted(SHOWS) == sorted(names)
    assert sorted(names) == sorted(re.findall(r"`(\w+/\w+\.\w+)`", readme))


@pytest.mark.parametrize("name", SHOWS)
async def test_an_example_prints_what_it_says(name: str) -> None:
    async with running_emulator(limits=FAST) as emulator:
        # A job that is to be cancelled must still be there when it is.
        slots = 0 if name == "curl/cancel.sh" else 2
        async with fake_worker(emulator, slots=slots, pause=0.02):
            code, out, err = await run(EXAMPLES / name, emulator.url + "/v2")

    assert (0, True) == (code, SHOWS[name](out)), (out, err)
