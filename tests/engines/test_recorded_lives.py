"""What was recorded of processes that start, fail and end: the worker's outcome for each.

A process in the webui's place prints the recorded log, and ends or lives on as it was recorded.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.engines.fake_classic import FakeClassic, fake_classic
from tests.engines.fake_classic import make_checkout as classic_files
from tests.engines.fake_webui import make_checkout
from tests.engines.test_classic import folder, make, session
from tests.engines.test_current import make as make_current
from tests.engines.test_current_recordings import CONTRACT, replay
from worker.engines.classic import ClassicEngine
from worker.engines.current import CurrentEngine
from worker.engines.webui_causes import cause_of
from worker.errors import EngineBroken, EngineStartFailed, JobError, SettingsError
from worker.settings import Settings

__all__ = ["folder", "session"]  # fixtures
LIMIT = 20.0
LIVES: dict[str, dict[str, Any]] = {
    generation: json.loads((CONTRACT / generation / "behaviour_lifecycle.json").read_text("utf-8"))
    for generation in ("legacy", "modern")
}
# Each life that never was ready -> what the worker says of it.
FAILED_STARTS = {
    ("legacy", "bad_flag"): "unrecognized arguments: --no-such-flag",
    ("legacy", "model_missing_transformers"): "there is no such model in its models folder",
    ("legacy", "model_missing_autoloader"): "there is no such model in its models folder",
    ("legacy", "port_in_use_blocking"): "the engine can't be reached: its port is taken",
    ("legacy", "port_in_use_gradio"): "its port is taken",
    ("modern", "bad_flag"): "unrecognized arguments: --no-such-flag",
    ("modern", "model_missing_llamacpp"): "has not loaded small.gguf: there is no such model",
    ("modern", "model_missing_autoloader"): "there is no such model in its models folder",
    ("modern", "model_none"): "has not loaded small.gguf",
    ("modern", "no_api_flag"): "the engine ended: exit code 0",
    ("modern", "port_in_use"): "is taken",
}
# Each life that a signal ended -> the signal, and whether the process must be killed in the end.
ENDED = {
    ("legacy", "sigterm_idle"): (signal.SIGTERM, False),
    ("legacy", "sigint_idle"): (signal.SIGINT, False),
    ("legacy", "sigterm_busy"): (signal.SIGTERM, False),
    ("modern", "sigterm_idle"): (signal.SIGTERM, False),
    ("modern", "sigterm_busy"): (signal.SIGTERM, True),
    ("modern", "sigint_idle"): (signal.SIGINT, False),
    ("modern", "sigkill_idle"): (signal.SIGKILL, False),
    ("modern", "sigterm_busy_stream"): (signal.SIGTERM, False),
    ("modern", "sigint_busy_twice"): (signal.SIGINT, True),
}


def test_every_recorded_life_is_a_case() -> None:
    recorded = {(generation, name) for generation in LIVES for name in LIVES[generation]}

    assert recorded == {*FAILED_STARTS, *ENDED}


@pytest.mark.parametrize("name", FAILED_STARTS, ids="-".join)
async def test_a_recorded_start_fails_at_once_with_its_cause(
    name: tuple[str, str],
    folder: Path,
    session: aiohttp.ClientSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    generation, life = name[0], dict(LIVES[name[0]][name[1]])
    engine: ClassicEngine | CurrentEngine
    if generation == "legacy":
        if name[1] == "port_in_use_blocking":
            # From the part of its log that was not kept.
            life["log_tail"] = ["OSError: [Errno 98] Address already in use", *life["log_tail"]]
        (folder / "FAKE_CLASSIC").write_text(json.dumps(life))
        engine = make(folder)
    else:
        checkout = make_checkout(tmp_path_factory.mktemp("webui"))
        if name[1] == "model_none":  # it was ready without a model
            life = {"log_tail": ["No .gguf"]}
        (checkout / "recorded.json").write_text(json.dumps(life))
        engine = make_current(checkout, ENGINE_ARGS="--lie recorded")
    engine.spawn()
    began = time.monotonic()
    with pytest.raises(EngineStartFailed) as caught:
        await engine.wait_ready(session)

    assert FAILED_STARTS[name] in str(caught.value)
    assert time.monotonic() - began < LIMIT


def test_a_flag_that_ended_the_process_is_refused_before_there_is_one(folder: Path) -> None:
    with pytest.raises(SettingsError, match="--no-such-flag; it is unknown to this checkout"):
        make(folder, engine_args="--no-such-flag")


@pytest.mark.parametrize("name", ENDED, ids="-".join)
async def test_an_end_that_nobody_asked_for_is_told_and_leaves_no_process(
    name: tuple[str, str], folder: Path, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    number, must_be_killed = ENDED[name]
    lie = "stubborn" if must_be_killed and number == signal.SIGTERM else "none"
    engine: ClassicEngine | CurrentEngine
    if name[0] == "legacy":
        engine = make(folder)
        engine.spawn()
        await engine.wait_ready(session, LIMIT)
    else:
        engine = make_current(make_checkout(tmp_path / "webui"), ENGINE_ARGS=f"--lie {lie}")
        engine.spawn()
        await engine.wait_ready(session)
    pids = _group(engine)
    if must_be_killed and number == signal.SIGTERM:
        await engine.stop(0)
    else:
        os.kill(pids[0], number)
        died = await asyncio.wait_for(engine.wait_died(), LIMIT)
        assert f"killed by signal {number.value}" in died
        await engine.stop(0)

    await _until(lambda: not any(_lives(pid) for pid in pids))


async def test_what_the_busy_callers_got_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    classic = FakeClassic()
    cut = LIVES["legacy"]["sigterm_busy"]["busy_client_output"].encode()
    classic.answers["generate"] = cut
    classic.generation = []
    async with fake_classic(classic_files(tmp_path), classic) as it:
        with pytest.raises(EngineBroken, match="try again"):
            await it.job("/generate", {"prompt": "x"})
    request = {"method": "POST", "path": "/v1/completions", "body": {"prompt": "x"}}
    for life, status, stream in (
        ("sigint_busy_twice", 500, False),
        ("sigterm_busy_stream", 200, True),
    ):
        output = LIVES["modern"][life]["busy_client_output"]
        kind = "text/event-stream" if stream else "text/plain"
        body = "data: {" + output.split("data: {", 1)[1] if stream else output.split("\r\n\r\n")[1]
        answer = {"status": status, "headers": {"content-type": kind}, "body": body}
        wanted = {**request, "body": {"prompt": "x", "stream": stream}}
        with pytest.raises(JobError) as caught:
            await replay(life, {"request": wanted, "response": answer})
        assert 502 == caught.value.status


def test_a_recorded_cold_start_is_within_the_deadline_and_looks_like_no_failure() -> None:
    starts = json.loads((CONTRACT / "coldstart.json").read_text("utf-8"))
    lists = [value for value in starts.values() if isinstance(value, list)]
    runs = [run for runs in lists for run in runs]

    assert 12 == len(runs)
    assert all(run["ready_s"] < Settings().engine_start_timeout / 10 for run in runs)
    assert not [run for run in runs if cause_of(run["load_line"]) is not None]


def _group(engine: ClassicEngine | CurrentEngine) -> list[int]:
    """The process and its children."""
    main = engine._webui.process.pid  # noqa: SLF001 - nothing else tells it for both
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return [main, *map(int, children)]


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
