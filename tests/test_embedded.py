"""The embedded engine with its real model, in a real child."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.models.weights import gguf
from worker.engines.cores import usable_cores
from worker.engines.embedded import EmbeddedEngine
from worker.engines.embedded_child import explain
from worker.engines.llama_child import FAULT
from worker.engines.ready import Startup
from worker.errors import EngineDown, EngineStartFailed, UnknownRoute
from worker.models import BUNDLED_FILE, bundled_path, catalog
from worker.process import EngineProcess
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
LIMIT = 20.0
SECRET = "canary-5417"
BUNDLED = BUNDLED_FILE.removesuffix(".gguf")
pytestmark = pytest.mark.asyncio(loop_scope="module")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_engine(settings: Settings, lines: list[str] | None = None) -> EmbeddedEngine:
    environ = {**os.environ, "RUNPOD_AI_API_KEY": SECRET}
    log = (lambda _: None) if lines is None else lines.append
    return EmbeddedEngine(settings, catalog(settings), environ, log)


def model_file() -> Path:
    path = bundled_path()
    assert path is not None
    return path


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model under another name, and a file that only begins like one."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "good.gguf").symlink_to(model_file())
    (folder / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 10_000)
    (folder / "unknown.gguf").write_bytes(gguf())
    with model_file().open("rb") as file:
        (folder / "cut.gguf").write_bytes(file.read(5_000_000))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(models_dir: Path, session: aiohttp.ClientSession) -> AsyncIterator[EmbeddedEngine]:
    """One engine for tests that leave it usable."""
    settings = Settings(
        engine_port=free_port(),
        models_dir=models_dir,
        model="good",
        engine_slots=2,
        engine_context=500,
        engine_threads=1,
        engine_stop_timeout=LIMIT,
    )
    started = make_engine(settings)
    started.spawn()
    try:
        await started.wait_ready(session, LIMIT)
        yield started
    finally:
        await started.stop(0)


def url(engine: EmbeddedEngine, path: str) -> str:
    return f"http://127.0.0.1:{engine.describe()['api_blocking_port']}{path}"


async def loaded(engine: EmbeddedEngine) -> EmbeddedEngine:
    """The engine with a model, whatever the last test left."""
    if engine.model_name is None:
        await engine.load("good")
    return engine


async def test_start_is_timed_in_phases(session: aiohttp.ClientSession) -> None:
    engine = make_engine(Settings(engine_port=free_port(), engine_context=128))
    engine.spawn()
    try:
        times = await engine.wait_ready(session, LIMIT)

        assert engine.model_name == BUNDLED
        assert list(times) == ["imports", "model", "first token"]
        assert sum(times.values()) < LIMIT
    finally:
        await engine.stop(0)


async def test_a_token_can_be_generated_when_it_is_ready(
    engine: EmbeddedEngine, session: aiohttp.ClientSession
) -> None:
    await loaded(engine)
    body = {"prompt": "Hello", "n_predict": 2}
    async with session.post(url(engine, "/completion"), json=body) as response:
        assert (response.status, (await response.json())["tokens_predicted"]) == (200, 2)


async def test_each_slot_has_the_whole_context(
    engine: EmbeddedEngine, session: aiohttp.ClientSession
) -> None:
    await loaded(engine)
    async with session.get(url(engine, "/slots")) as response:
        assert [slot["n_ctx"] for slot in await response.json()] == [512, 512]


async def test_the_context_is_capped_to_what_the_model_was_trained_for(
    session: aiohttp.ClientSession,
) -> None:
    engine = make_engine(Settings(engine_port=free_port(), engine_context=9000, engine_slots=1))
    engine.spawn()
    try:
        await engine.wait_ready(session, LIMIT)

        assert engine.context_length == 8192
    finally:
        await engine.stop(0)


async def test_the_api_shows_the_name_and_no_path(
    engine: EmbeddedEngine, session: aiohttp.ClientSession
) -> None:
    await loaded(engine)
    async with session.get(url(engine, "/v1/models")) as response:
        text = await response.text()

    assert '"good"' in text
    assert "/models" not in text


async def test_only_loopback_is_listened_on(engine: EmbeddedEngine) -> None:
    await loaded(engine)
    port = engine.describe()["api_blocking_port"]
    with socket.create_server(("127.0.0.2", port)):
        pass  # an address of all interfaces would be taken


async def test_the_child_gets_no_secret(engine: EmbeddedEngine) -> None:
    await loaded(engine)
    environment = environment_of(pid_of(engine))

    assert "OMP_WAIT_POLICY=PASSIVE" in environment
    assert not [entry for entry in environment if SECRET in entry]


async def test_what_is_described_is_true_and_has_no_path(
    engine: EmbeddedEngine, models_dir: Path
) -> None:
    await loaded(engine)

    assert engine.describe() == {
        "api": True,
        "api_blocking_port": engine.describe()["api_blocking_port"],
        "cpu": True,
        "listen": False,
        "loader": "llama.cpp",
        "mlock": False,
        "model": "good",
        "model_dir": f"{models_dir.name}/",
        "n_batch": 2048,
        "n_ctx": 512,
        "n_gpu_layers": 0,
        "no_mmap": False,
        "threads": 1,
    }


async def test_another_model_is_loaded_on_the_same_port(
    engine: EmbeddedEngine, session: aiohttp.ClientSession
) -> None:
    await engine.load(BUNDLED)

    assert engine.model_name == BUNDLED
    async with session.get(url(engine, "/v1/models")) as response:
        assert (await response.json())["data"][0]["id"] == BUNDLED


async def test_without_a_model_the_engine_is_not_dead(engine: EmbeddedEngine) -> None:
    await loaded(engine)
    await engine.unload()

    assert (engine.model_name, engine.alive) == (None, True)
    assert engine.describe()["model"] is None


async def test_unload_twice_and_load_again(engine: EmbeddedEngine) -> None:
    await engine.unload()
    await engine.unload()
    await engine.load("good")

    assert engine.model_name == "good"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "broken",
            "the model file broken.gguf has a damaged header or a GGUF version other than 2 and 3",
        ),
        (
            "cut",
            "the model file cut.gguf is cut short: 5000000 of at least 98362432 bytes are there",
        ),
        ("unknown", "the engine ended: it does not know this kind of model"),
    ],
)
async def test_a_model_that_can_not_be_loaded_leaves_none_and_a_later_load_works(
    engine: EmbeddedEngine, name: str, text: str
) -> None:
    with pytest.raises(EngineStartFailed) as caught:
        await engine.load(name)

    assert str(caught.value) == text
    assert (engine.model_name, engine.alive) == (None, True)
    await engine.load("good")
    assert engine.model_name == "good"


async def test_an_unknown_model_changes_nothing(engine: EmbeddedEngine) -> None:
    await loaded(engine)
    with pytest.raises(UnknownRoute, match=r"there are: .*, broken, cut, good, unknown"):
        await engine.load("../good")

    assert engine.model_name is not None


async def test_loads_at_the_same_time_come_one_after_another(engine: EmbeddedEngine) -> None:
    await asyncio.gather(engine.load(BUNDLED), engine.load("good"))

    assert engine.model_name == "good"


async def test_a_cancelled_load_leaves_no_model_and_a_later_one_works(
    engine: EmbeddedEngine,
) -> None:
    await loaded(engine)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(engine.load(BUNDLED), 0.15)

    assert (engine.model_name, engine.alive) == (None, True)
    await engine.load("good")
    assert engine.model_name == "good"


async def test_unload_lets_a_running_generation_end(
    engine: EmbeddedEngine, session: aiohttp.ClientSession
) -> None:
    await loaded(engine)
    body = {"prompt": "Once", "n_predict": 60, "ignore_eos": True, "stream": True}
    async with session.post(url(engine, "/completion"), json=body) as response:
        await response.content.readline()
        _, rest = await asyncio.gather(engine.unload(), response.content.read())

    assert b'"stop":true' in rest


async def test_planned_ends_are_no_deaths(engine: EmbeddedEngine) -> None:
    await loaded(engine)
    died = asyncio.ensure_future(engine.wait_died())
    await engine.load("good")
    await engine.unload()
    await asyncio.wait({died}, timeout=0.1)

    assert not died.done()
    died.cancel()


async def test_an_unexpected_death_is_told_with_its_cause(
    session: aiohttp.ClientSession,
) -> None:
    engine = make_engine(Settings(engine_port=free_port(), engine_context=128))
    engine.spawn()
    await engine.wait_ready(session, LIMIT)
    os.kill(pid_of(engine), signal.SIGKILL)
    cause = await asyncio.wait_for(engine.wait_died(), LIMIT)

    assert re.fullmatch(
        r"the engine ended: killed by signal 9 \((out of memory, or )?from outside\)", cause
    )
    assert not engine.alive


async def test_a_death_after_a_load_reaches_who_waited_before_it(
    session: aiohttp.ClientSession,
) -> None:
    engine = make_engine(Settings(engine_port=free_port(), engine_context=128))
    engine.spawn()
    await engine.wait_ready(session, LIMIT)
    died = asyncio.ensure_future(engine.wait_died())
    await engine.load(BUNDLED)
    os.kill(pid_of(engine), signal.SIGKILL)

    assert "killed by signal 9" in await asyncio.wait_for(died, LIMIT)


async def test_a_busy_engine_stops_within_its_grace(session: aiohttp.ClientSession) -> None:
    engine = make_engine(Settings(engine_port=free_port(), engine_context=4096, engine_slots=1))
    engine.spawn()
    await engine.wait_ready(session, LIMIT)
    body = {"prompt": "Once", "n_predict": 4000, "ignore_eos": True, "stream": True}
    async with session.post(url(engine, "/completion"), json=body) as response:
        await response.content.readline()
        await asyncio.wait_for(engine.stop(0.2), 3.0)

    with pytest.raises(EngineDown, match="the worker is stopping"):
        engine.spawn()


async def test_a_taken_port_is_told_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        engine = make_engine(Settings(engine_port=port))
        with pytest.raises(EngineStartFailed) as caught:
            engine.spawn()

    assert str(caught.value) == f"the engine's port {port} is taken"


async def test_a_missing_model_is_told_before_anything_starts(tmp_path: Path) -> None:
    engine = make_engine(Settings(model=str(tmp_path / "no.gguf")))
    with pytest.raises(EngineStartFailed) as caught:
        engine.spawn()

    assert str(caught.value) == "the model file no.gguf is not there"


async def test_a_start_that_takes_too_long_ends_the_child(
    session: aiohttp.ClientSession,
) -> None:
    engine = make_engine(Settings(engine_port=free_port()))
    engine.spawn()
    pid = pid_of(engine)
    with pytest.raises(EngineStartFailed) as caught:
        await engine.wait_ready(session, 0.05)

    assert str(caught.value) == "the engine was not ready within 0.05 seconds"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_load_before_the_start_is_refused() -> None:
    engine = make_engine(Settings(engine_port=free_port()))

    with pytest.raises(EngineDown, match="not ready yet"):
        await engine.load(BUNDLED)


async def test_an_answer_of_another_server_is_not_believed(
    session: aiohttp.ClientSession,
) -> None:
    """The child ends before the probe's server, which accepts but never answers, does."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = spawn("import sys; sys.exit(3)")
        startup = Startup(process, session, timeout=LIMIT, explain=explain, poll=0.01, probe=0.1)
        with pytest.raises(EngineStartFailed, match="exit code 3"):
            await startup.until_status(
                f"http://127.0.0.1:{silent.getsockname()[1]}/", lambda status: status == 200
            )


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        ([], "the engine ended: exit code 1"),
        (["no /secret/folder/file"], "the engine ended: exit code 1, its last words: no file"),
        ([f"{FAULT}libgomp is missing"], "the engine ended: libgomp is missing"),
        (
            ["E failed to allocate CPU buffer", f"{FAULT}no start"],
            "the engine ended: there is not enough memory for this model and context",
        ),
        (["E couldn't bind HTTP", f"{FAULT}no start"], "the engine ended: its port is taken"),
    ],
    ids=["silent", "path", "fault", "memory", "port"],
)
async def test_the_cause_of_a_failed_start_is_one_sentence(printed: list[str], text: str) -> None:
    process = spawn(f"[print(line) for line in {printed!r}]; raise SystemExit(1)")
    await process.wait_exit()

    assert explain(process) == text


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
async def test_a_containers_quota_limits_the_cores(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")

    assert usable_cores(tmp_path) == (limit or len(os.sched_getaffinity(0)))


def spawn(code: str) -> EngineProcess:
    argv = [sys.executable, "-c", code]
    return EngineProcess.spawn(argv, cwd=ROOT, env=dict(os.environ), log=lambda _: None)


def environment_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def pid_of(engine: EmbeddedEngine) -> int:
    pid = engine.pid
    assert pid is not None
    return pid
