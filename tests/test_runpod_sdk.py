"""The parts of the SDK's inside that the worker relies on; a new SDK without one fails here."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker import runpod_sdk
from worker.runpod_sdk import INTERNALS, Sdk, load_sdk


@pytest.fixture(scope="module")
def sdk() -> Sdk:
    return load_sdk()


def test_the_sdk_is_the_one_that_was_read(sdk: Sdk) -> None:
    assert ["1", "12"] == sdk.version.split(".")[:2]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in INTERNALS.items() for name in names]
)
def test_the_sdk_has_the_part(sdk: Sdk, module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("rp_job.get_job", ["session", "num_jobs"]),
        ("rp_job.get_stop_signals", ["session"]),
        ("rp_http.send_result", ["session", "job_data", "job", "is_stream"]),
        ("rp_http.stream_result", ["session", "job_data", "job"]),
        ("rp_fitness.run_fitness_checks", []),
        ("rp_ping.Heartbeat.process_loop", ["mirror", "test"]),
        ("worker_state.JobsProgress.add", ["self", "element"]),
        ("worker_state.JobsProgress.remove", ["self", "element"]),
        ("worker_state.JobsProgress.set_mirror", ["self", "mirror"]),
        ("rp_scale.JobScaler.run", ["self"]),
        ("rp_scale.JobScaler.kill_worker", ["self"]),
    ],
)
def test_the_part_takes_what_the_worker_gives(
    sdk: Sdk, function: str, parameters: list[str]
) -> None:
    module, *names = function.split(".")
    part: Any = importlib.import_module(f"runpod.serverless.modules.{module}")
    for name in names:
        part = getattr(part, name)
    assert parameters == list(inspect.signature(part).parameters)


async def test_the_sdks_own_loop_has_the_attributes_that_are_set(sdk: Sdk) -> None:
    scaler = sdk.job_scaler({"concurrency_modifier": lambda _: 2})
    assert {} == scaler.jobs_tasks
    assert callable(scaler.jobs_handler)


def test_an_sdk_without_a_part_is_refused_by_name(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("runpod.serverless.modules.rp_job.get_job")
    with pytest.raises(AttributeError, match="get_job"):
        Sdk()


def test_jobs_in_progress_are_the_sdks(sdk: Sdk) -> None:
    progress = importlib.import_module("runpod.serverless.modules.worker_state").JobsProgress()
    sdk.begin("j1")
    assert "j1" == progress.get_job_list()
    sdk.end("j1")
    assert progress.get_job_list() is None


def test_without_the_platforms_variables_nothing_pings(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)
    with sdk.heartbeat():
        assert [] == importlib.import_module("multiprocessing").active_children()


def in_a_new_process(code: str, **variables: str) -> str:
    """What the code prints, after `sdk = load_sdk()`."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys, {runpod_sdk.__name__} as w\n{code}"],
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return result.stdout


def test_the_stand_ins_of_the_import_are_gone_afterwards() -> None:
    code = (
        "sdk = w.load_sdk()\n"
        "import cpuinfo, paramiko\n"
        "print(cpuinfo.__file__ is not None, paramiko.SSHClient.__name__)"
    )
    assert "True SSHClient\n" == in_a_new_process(code)


def test_importing_the_module_does_not_import_the_sdk() -> None:
    assert "False\n" == in_a_new_process("print('runpod' in sys.modules)")


@pytest.mark.parametrize(
    ("asked", "level"), [("", "INFO"), ("DEBUG", "INFO"), ("TRACE", "INFO"), ("ERROR", "ERROR")]
)
def test_the_sdks_log_never_goes_below_info(asked: str, level: str) -> None:
    code = (
        "sdk = w.load_sdk()\n"
        "from runpod.serverless.modules.rp_logger import RunPodLogger\n"
        "print(RunPodLogger().level)"
    )
    variables = {"RUNPOD_LOG_LEVEL": asked} if asked else {}
    assert f"{level}\n" == in_a_new_process(code, **variables)


def test_urls_are_made_of_the_platforms_variables() -> None:
    code = "sdk = w.load_sdk(); print(sdk.result_url('j', stream=True), sdk.chunk_url('j'))"
    variables = {
        "RUNPOD_POD_ID": "w1",
        "RUNPOD_WEBHOOK_POST_OUTPUT": "http://h/done/$RUNPOD_POD_ID/$ID?gpu=X",
        "RUNPOD_WEBHOOK_POST_STREAM": "http://h/stream/$RUNPOD_POD_ID/$ID?gpu=X",
    }
    expected = "http://h/done/w1/j?gpu=X&isStream=true http://h/stream/w1/j?gpu=X&isStream=false\n"
    assert expected == in_a_new_process(code, **variables)
