"""The classic engine's life, with a process in its place that starts, fails and lies as told."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.engines.fake_classic import low_port
from tests.models.weights import safetensors
from worker.engines.classic import ClassicEngine
from worker.engines.classic_launch import free_ports, plan
from worker.engines.webui import open_checkout
from worker.errors import EngineDown, EngineStartFailed, SettingsError
from worker.settings import Settings

LIMIT = 20.0
FLAGS = [
    "--api",
    "--cpu",
    "--model",
    "--loader",
    "--lora",
    "--model-dir",
    "--n_ctx",
    "--threads",
    "--n-gpu-layers",
]
PORTS = ["--api-blocking-port", "--api-streaming-port", "--listen-port", "--max_seq_len"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with one model."""
    for name in ("extensions/api", "modules", "models/small"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "extensions/api/blocking_api.py").touch()
    (tmp_path / "models/small/model.safetensors").write_bytes(safetensors())
    flags = "\n".join(f"parser.add_argument({flag!r})" for flag in [*FLAGS, *PORTS])
    (tmp_path / "modules/shared.py").write_text(flags)
    shutil.copy(Path(__file__).with_name("fake_classic_server.py"), tmp_path / "server.py")
    (tmp_path / "FAKE_CLASSIC").write_text("well")
    return tmp_path


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def make(folder: Path, lines: list[str] | None = None, **settings: Any) -> ClassicEngine:
    settings = {
        "engine_port": low_port(),
        "webui_python": Path(sys.executable),
        **settings,
    }
    checkout = open_checkout(folder)
    log = (lines if lines is not None else []).append
    return ClassicEngine(Settings(**settings), checkout, {"RUNPOD_API_KEY": "canary"}, log)


def argv(folder: Path, **settings: Any) -> list[str]:
    settings = {"webui_python": Path(sys.executable), **settings}
    return plan(Settings(**settings), open_checkout(folder)).argv(5000, 5001, 5002)[2:]


def test_the_command_line_has_three_ports_and_the_only_model(folder: Path) -> None:
    ports = "--api-blocking-port 5000 --api-streaming-port 5001 --listen-port 5002"

    assert f"--api {ports} --model small".split() == argv(folder)


def test_what_an_operator_sets_comes_last(folder: Path) -> None:
    words = argv(folder, engine_loader="Transformers", engine_args="--cpu --loader RWKV")

    assert ["--loader", "Transformers", "--cpu", "--loader", "RWKV"] == words[9:]


def test_loras_are_given_by_name_with_the_folder_that_a_path_leads_to(
    folder: Path, tmp_path: Path
) -> None:
    for lora in (folder / "loras" / "mine", tmp_path / "elsewhere" / "far"):
        lora.mkdir(parents=True)
        (lora / "adapter_config.json").write_text("{}")
        (lora / "adapter_model.safetensors").write_bytes(safetensors())

    assert ["--lora", "mine"] == argv(folder, lora=("mine",))[9:]
    far = (str(tmp_path / "elsewhere" / "far"),)
    elsewhere = ["--lora-dir", str(tmp_path / "elsewhere"), "--lora", "far"]
    assert elsewhere == argv(folder, lora=far)[9:]
    assert ["--lora", "mine"] == argv(folder, lora=far, engine_args="--lora mine")[9:]
    with pytest.raises(SettingsError, match="there is no LoRA 'no'; there are: mine"):
        argv(folder, lora=("no",))


def test_the_context_is_set_in_the_loaders_own_flag(folder: Path) -> None:
    settings = {"engine_context": 512, "engine_threads": 3, "engine_gpu_layers": 9}
    llama = argv(folder, engine_loader="llama.cpp", **settings)
    exllama = argv(folder, engine_loader="ExLlama_HF", **settings)

    assert ["--n_ctx", "512", "--threads", "3", "--n-gpu-layers", "9"] == llama[11:]
    assert ["--max_seq_len", "512"] == exllama[11:]


def test_a_model_elsewhere_is_found_by_its_path(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "models" / "small", tmp_path / "elsewhere" / "big")
    words = argv(folder, model=str(tmp_path / "elsewhere" / "big"))

    assert ["--model", "big", "--model-dir", str(tmp_path / "elsewhere")] == words[7:]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "no"}, "it must be one of the models of text-generation-webui \\(small\\)"),
        ({"engine_args": "--listen"}, "it is refused"),
        ({"engine_args": "--cpuu"}, "has --cpuu; "),
    ],
)
def test_a_wrong_setting_is_told_before_the_start(
    folder: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        make(folder, **settings)


def test_free_ports_are_near_and_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = free_ports(port - 1, 2)

    assert (2, False, True) == (len(set(found)), port in found, max(found) < port + 500)


def environment_of(engine: ClassicEngine) -> str:
    return Path(f"/proc/{engine.pid}/environ").read_text(encoding="utf-8")


async def test_it_is_ready_after_a_token(folder: Path, session: aiohttp.ClientSession) -> None:
    lines: list[str] = []
    engine = make(folder, lines)
    engine.spawn()
    try:
        times = await engine.wait_ready(session, LIMIT)

        assert (["answers", "page", "first token"], "small") == (list(times), engine.model_name)
        assert [line for line in lines if "Blocking API URL" in line]
        assert "canary" not in environment_of(engine)
    finally:
        await engine.stop(0)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("exit OSError: Cannot find empty port in range: 7960", "its port is taken"),
        ("exit ERROR:The path to the model does not exist. Exiting.", "there is no such model"),
        ("exit server.py: error: unrecognized arguments: --no", "unrecognized arguments: --no"),
        ("exit what", "the engine ended: exit code 1, its last words: what"),
        ("no model", "the engine did not load the model; its log says why"),
        ("another model", "the engine loaded 'another' and not 'small'"),
        ("out of memory", "there is not enough memory for this model and context"),
    ],
)
async def test_a_failed_start_is_told_with_its_cause(
    folder: Path, session: aiohttp.ClientSession, mode: str, says: str
) -> None:
    lines: list[str] = []
    (folder / "FAKE_CLASSIC").write_text(mode)
    engine = make(folder, lines)
    engine.spawn()
    with pytest.raises(EngineStartFailed) as caught:
        await engine.wait_ready(session, LIMIT)

    assert (True, None, True) == (
        says in str(caught.value),
        engine.pid,
        any(line.startswith("| ") for line in lines),
    )


async def test_a_port_that_somebody_took_after_the_spawn_is_told_at_once(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    """The other server answers 200 to everything; the engine's process lives on."""
    engine = make(folder)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    engine.spawn()
    async with await asyncio.start_server(answer, "127.0.0.1", engine.port):
        with pytest.raises(EngineStartFailed) as caught:
            await engine.wait_ready(session, LIMIT)

    assert "the engine can't be reached: its port is taken" == str(caught.value)


async def test_a_taken_port_is_told_before_anything_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        engine = make(folder, engine_port=taken.getsockname()[1])
        with pytest.raises(EngineStartFailed, match="is taken"):
            engine.spawn()


async def test_a_start_that_takes_too_long_ends_the_process(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    (folder / "FAKE_CLASSIC").write_text("slow")
    engine = make(folder)
    engine.spawn()
    pid = engine.pid
    assert pid is not None
    with pytest.raises(EngineStartFailed, match=r"not ready within 0\.2 seconds"):
        await engine.wait_ready(session, 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_death_is_told_and_a_new_process_can_be_started(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    engine = make(folder)
    engine.spawn()
    try:
        await engine.wait_ready(session, LIMIT)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        cause = await asyncio.wait_for(engine.wait_died(), LIMIT)
        engine.spawn()
        await engine.wait_ready(session, LIMIT)

        assert ("small", True) == (engine.model_name, "killed by signal 9" in cause)
    finally:
        await engine.stop(0)


async def test_after_the_stop_nothing_can_be_started(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    engine = make(folder)
    await engine.stop(0)
    with pytest.raises(EngineDown, match="the worker is stopping"):
        engine.spawn()
