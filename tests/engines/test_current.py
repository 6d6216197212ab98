"""The current engine's life, on a checkout that is a real process and lies as the real one does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.engines.fake_webui import make_checkout
from tests.ports import free_port
from worker.engines.choose import make_engine
from worker.engines.current import CurrentEngine
from worker.engines.webui_extension import script
from worker.errors import EngineStartFailed, SettingsError
from worker.settings import Settings


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "webui")


def make(checkout: Path, log: list[str] | None = None, **changes: str) -> CurrentEngine:
    environ = {
        "PATH": os.environ["PATH"],
        "WEBUI_DIR": str(checkout),
        "WEBUI_PYTHON": sys.executable,
        "ENGINE_PORT": str(free_port()),
        "ENGINE_START_TIMEOUT": "20",
        "HF_TOKEN": "canary",
        **changes,
    }
    log = [] if log is None else log
    engine = make_engine(Settings.from_env(environ), environ, log.append)
    assert isinstance(engine, CurrentEngine)
    return engine


@asynccontextmanager
async def started(engine: CurrentEngine) -> AsyncIterator[CurrentEngine]:
    async with aiohttp.ClientSession() as session:
        try:
            engine.spawn()
            await engine.wait_ready(session)
            yield engine
        finally:
            await engine.stop(0)


async def test_a_ready_engine_names_its_model_and_its_context(checkout: Path) -> None:
    async with started(make(checkout)) as engine:
        assert ("small.gguf", 256) == (engine.model_name, engine.state.context)


async def test_llama_cpp_gets_the_context_of_each_slot_and_the_operators_flags_last(
    checkout: Path,
) -> None:
    engine = make(checkout, ENGINE_SLOTS="3", ENGINE_CONTEXT="512", ENGINE_ARGS="--threads 7")
    words = engine.launch.argv(1, Path("data"))
    assert 3 == engine.slots
    assert "1536" == words[words.index("--ctx-size") + 1]
    assert ["--threads", "7", "--extensions", "worker_state"] == words[-4:]


async def test_info_shows_no_secret_and_no_absolute_path(checkout: Path) -> None:
    async with started(make(checkout)) as engine:
        told = await engine.info()
    assert "canary" not in str(told)
    assert str(checkout) not in str(told)
    assert "user_data/models" == told["args"]["model_dir"]


async def test_the_checkout_is_not_written_to(checkout: Path) -> None:
    before = sorted(path.name for path in (checkout / "user_data").rglob("*"))
    async with started(make(checkout)):
        pass
    assert before == sorted(path.name for path in (checkout / "user_data").rglob("*"))


@pytest.mark.parametrize(
    ("lie", "cause"),
    [
        ("exit", "not enough memory"),
        ("unloaded", "has not loaded small.gguf: the model file is broken"),
        ("other-port", "port [0-9]+ is taken"),
    ],
)
async def test_a_failed_start_is_told_at_once_with_its_cause(
    checkout: Path, lie: str, cause: str
) -> None:
    log: list[str] = []
    with pytest.raises(EngineStartFailed, match=cause):
        async with started(make(checkout, log, ENGINE_ARGS=f"--lie {lie}")):
            pass
    assert any(line.startswith('| INFO     Loading "small.gguf"') for line in log)


async def test_a_start_that_hangs_ends_with_the_deadline(checkout: Path) -> None:
    engine = make(checkout, ENGINE_ARGS="--lie hang", ENGINE_START_TIMEOUT="1")
    with pytest.raises(EngineStartFailed, match="not ready within 1 seconds"):
        async with started(engine):
            pass


async def test_the_death_of_the_llama_server_is_the_engines(checkout: Path) -> None:
    async with started(make(checkout)) as engine:
        port = engine.settings.engine_port
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{engine.probe_path}") as response,
        ):
            os.kill((await response.json())["child"], 9)
        died = await asyncio.wait_for(engine.wait_died(), 2)
    assert died.startswith("the engine's llama-server ended: killed by signal 9")


async def test_an_aborted_engine_has_died_and_can_be_spawned_again(checkout: Path) -> None:
    async with started(make(checkout)) as engine:
        engine.abort()
        assert "killed by signal 9" in await asyncio.wait_for(engine.wait_died(), 5)
        engine.spawn()
        async with aiohttp.ClientSession() as session:
            await engine.wait_ready(session)
            assert "small.gguf" == engine.model_name


def test_flags_in_the_checkouts_own_file_are_checked_too(checkout: Path) -> None:
    (checkout / "user_data" / "CMD_FLAGS.txt").write_text("# mine\n--listen\n")
    with pytest.raises(SettingsError, match=r"CMD_FLAGS\.txt has --listen; it is refused"):
        make(checkout)


def test_the_engine_must_be_of_the_generation_that_is_asked_for(checkout: Path) -> None:
    with pytest.raises(SettingsError, match="holds the current one"):
        make(checkout, ENGINE="classic")


class LlamaServer:
    """What the extension sees of textgen's: a port."""

    def __init__(self, port: int) -> None:
        self.port = port


@pytest.mark.parametrize("status", [b"200 OK", b"501 Not Implemented"])
async def test_a_llama_server_is_asked_until_it_answers(status: bytes) -> None:
    answers = asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answers.wait()
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    asked = asyncio.Event()
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        asking = asyncio.create_task(asyncio.to_thread(script.asked, LlamaServer(port)))
        await asyncio.wait_for(asked.wait(), 5)
        assert not asking.done()
        answers.set()

        assert "OK" == await asyncio.wait_for(asking, 5)


def test_a_model_without_a_llama_server_is_not_asked() -> None:
    assert "OK" == script.asked(None)


async def test_the_engine_tells_its_work_by_a_route_of_its_own(checkout: Path) -> None:
    async with started(make(checkout)) as engine, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{engine.settings.engine_port}{engine.work_path}"
        async with session.get(url) as response:
            assert (200, "OK") == (response.status, await response.json())
