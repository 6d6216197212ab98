"""The line of the log that tells where the time of a start went."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.ports import free_port
from worker import joblog
from worker.cold_start import SHELL_TIMES, ColdStart, importing

ROOT = Path(__file__).parent.parent
LIMIT = 60.0


class Clock:
    """Goes on by 0.25 s at each look; the wall clock is 1000 s ahead of it."""

    def __init__(self) -> None:
        self.now = 10.0

    def monotonic(self) -> float:
        self.now += 0.25
        return self.now

    def wall(self) -> float:
        return self.now + 1000.25


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(joblog.logger, "handlers", [caplog.handler])
    monkeypatch.setattr(joblog.logger, "propagate", False)
    caplog.set_level(logging.INFO, joblog.logger.name)
    return caplog


def begin(clock: Clock, handed: Mapping[str, str]) -> ColdStart:
    """A start whose first statement was at 10.0 on the monotonic clock, 1010.0 on the wall's."""
    return ColdStart(handed, 10.0, clock=clock.monotonic, wall=clock.wall)


def test_each_phase_ends_with_its_mark_and_the_engines_are_told_apart(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    cold_start = begin(clock, {SHELL_TIMES: "1009.5 1009.75"})
    cold_start.mark("imports")
    cold_start.mark("settings")
    cold_start.report({"model": 0.125})

    assert [
        "cold start 1.25 s: shell 0.25, interpreter 0.25, imports 0.50, settings 0.25; "
        "the engine, meanwhile: model 0.12"
    ] == log.messages


def test_the_phases_are_in_the_platforms_log_as_numbers(
    clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    cold_start = begin(clock, {})
    cold_start.mark("imports")
    cold_start.report({"model": 0.5})

    (record,) = log.records
    assert record.__dict__["fields"] == {
        "cold_start": {"imports": 0.5},
        "cold_start_engine": {"model": 0.5},
    }


@pytest.mark.parametrize(
    ("handed", "began"),
    [
        ("1009.5 1009.75", 9.5),
        ("1009,5 1009,75", 9.5),
        (" ", 10.0),
        ("1009.5", 10.0),
        ("now then", 10.0),
        ("1009.75 1009.5", 10.0),
        ("1009.5 1010.5", 10.0),
        ("nan nan", 10.0),
    ],
    ids=["told", "comma", "old bash", "one", "words", "backwards", "the future", "nan"],
)
def test_a_start_begins_with_the_shell_if_its_times_can_be_true(
    clock: Clock, handed: str, began: float
) -> None:
    assert began == begin(clock, {SHELL_TIMES: handed}).began


def test_imports_are_not_interrupted_by_the_garbage_collector() -> None:
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()

    assert (gc.isenabled(), gc.get_freeze_count() > before) == (True, True)
    gc.unfreeze()


def test_the_worker_tells_every_phase_of_its_start_in_one_line() -> None:
    job = {"input": {"api": {"method": "GET", "endpoint": "/model"}}}
    variables = {
        **os.environ,
        "WORKER_PYTHON": sys.executable,
        "ENGINE": "embedded",
        "ENGINE_PORT": str(free_port()),
    }
    done = subprocess.run(
        [ROOT / "start.sh", "--test_input", json.dumps(job)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )

    lines = re.findall(r"cold start .*", done.stderr)
    phases = (
        "shell, interpreter, imports, settings, model lookup, spawn, more imports, "
        "checks and heartbeat, waiting for the engine; the engine, meanwhile: imports, model, "
        "first token"
    )
    assert [f"cold start s: {phases}"] == [re.sub(r" \d+\.\d\d", "", line) for line in lines]


@pytest.mark.parametrize("engine", ["embedded", "current", "classic"])
def test_nothing_heavy_is_imported_before_the_engine_is_started(engine: str) -> None:
    """Each would delay the engine, whose start is the longer one."""
    code = (
        "import sys; from worker.app import main; from worker.engines import choose, "
        f"{engine}; print(*{{'asyncio', 'aiohttp', 'argparse', 'hashlib', 'runpod', 'yaml'}} "
        "& set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "\n"
