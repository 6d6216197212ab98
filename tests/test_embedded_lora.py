"""LoRAs on the embedded engine: a real llama.cpp, a real model, LoRAs of random numbers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.lora import write_gguf
from tests.ports import free_port
from worker.answerer import Answerer
from worker.client import EngineClient
from worker.engines.embedded import EmbeddedEngine
from worker.errors import EngineRefused, EngineStartFailed, InvalidJob, SettingsError, UnknownRoute
from worker.job import parse_job
from worker.models import catalog
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

LIMIT = 30.0
PROMPT = "The capital of France is"
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Sink:
    def __init__(self) -> None:
        self.first = asyncio.Event()

    async def put(self, event: Any, size: int) -> None:
        self.first.set()


@dataclass
class Running:
    engine: EmbeddedEngine
    answerer: Answerer

    async def job(self, endpoint: str, payload: Any = None, sink: Sink | None = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.answerer.answer(request, sink or Sink(), Progress())

    async def text(self) -> str:
        body = {"prompt": PROMPT, "max_new_tokens": 8, "do_sample": False}
        text: str = (await self.job("/generate", body))["results"][0]["text"]
        return text

    async def loras(self) -> Any:
        return (await self.job("/model", {"action": "info"}))["result"]["lora_names"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("one", "two")):
        write_gguf(folder / f"{name}.gguf", seed=seed)
    whole = (folder / "one.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "README.md").write_text("no LoRA")
    return folder


def make(folder: Path, **settings: Any) -> EmbeddedEngine:
    chosen = Settings(
        engine_port=free_port(),
        engine_slots=1,
        engine_context=256,
        engine_stop_timeout=LIMIT,
        model_admin="all",
        loras_dir=folder,
        **settings,
    )
    return EmbeddedEngine(chosen, catalog(chosen), dict(os.environ), lambda _: None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(folder: Path) -> AsyncIterator[Running]:
    """One engine, started with the LoRA one."""
    engine = make(folder, lora=("one",))
    port = int(engine.describe()["api_blocking_port"])
    client = EngineClient(port)
    try:
        engine.spawn()
        await engine.wait_ready(client.session, LIMIT)
        yield Running(engine, engine.answerer(client, Slots(1)))
    finally:
        await engine.stop(0)
        await client.close()


async def test_a_lora_changes_the_text_and_its_unload_changes_it_back(it: Running) -> None:
    texts = {"start": await it.text()}
    for name in ("two", "one"):
        assert "OK" == await it.job("/v1/internal/lora/load", {"lora_names": [name]})
        assert [name] == await it.loras()
        texts[name] = await it.text()
    assert "OK" == await it.job("/v1/internal/lora/unload", {})
    assert [] == await it.loras()
    texts["none"] = await it.text()

    assert texts["none"].startswith(" Paris")
    assert texts["start"] == texts["one"]
    assert 3 == len(set(texts.values()))


async def test_the_loras_that_there_are_are_listed(it: Running) -> None:
    assert {"lora_names": ["cut", "one", "two"]} == await it.job("/v1/internal/lora/list")


async def test_a_load_of_a_model_may_name_its_loras(it: Running) -> None:
    name = it.engine.model_name
    load = {"action": "load", "model_name": name}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"args": {"lora": ["one", "two"]}}, ["one", "two"]),
        ({"args": {"lora": None}}, []),
        ({}, ["one"]),
    ]
    for args, expected in cases:
        assert expected == (await it.job("/model", {**load, **args}))["result"]["lora_names"]


async def test_a_lora_that_can_not_be_loaded_leaves_the_model_as_it_was(it: Running) -> None:
    await it.job("/v1/internal/lora/load", {"lora_names": ["two"]})
    before = await it.text()
    with pytest.raises(EngineStartFailed, match=r"cut\.gguf is cut short"):
        await it.job("/v1/internal/lora/load", {"lora_names": ["cut"]})

    assert (["two"], before) == (await it.loras(), await it.text())


async def test_a_lora_is_not_changed_under_a_running_generation(it: Running) -> None:
    await it.job("/v1/internal/lora/load", {"lora_names": ["two"]})
    body = {"prompt": PROMPT, "max_new_tokens": 60, "do_sample": False, "ban_eos_token": True}
    alone = await it.job("/generate", body)
    sink = Sink()
    running = asyncio.create_task(it.job("/generate", {**body, "stream": True}, sink))
    await asyncio.wait_for(sink.first.wait(), LIMIT)
    change = asyncio.create_task(it.job("/v1/internal/lora/unload", {}))

    assert alone == await asyncio.wait_for(running, LIMIT)
    assert "OK" == await asyncio.wait_for(change, LIMIT)
    assert (await it.text()).startswith(" Paris")


async def test_a_change_whose_caller_is_gone_leaves_a_model(it: Running) -> None:
    change = asyncio.create_task(it.job("/v1/internal/lora/load", {"lora_names": ["two"]}))
    while it.engine.model_name is not None:  # noqa: ASYNC110 - until the old process is forgotten
        await asyncio.sleep(0)
    change.cancel()
    await asyncio.wait({change})

    assert await it.text()
    assert (True, ["two"]) == (change.cancelled(), await it.loras())


@pytest.mark.parametrize(
    ("endpoint", "payload", "error", "says"),
    [
        ("load", {"lora_names": ["no"]}, UnknownRoute, "no LoRA 'no'; there are: cut, one, two"),
        ("load", {"lora_names": ["../one"]}, UnknownRoute, "no LoRA '../one'"),
        ("load", {"lora_names": [1]}, InvalidJob, "lora_names must be a list of names"),
        ("load", {"lora_names": ["one", "one"]}, InvalidJob, "each once"),
        ("load", {}, InvalidJob, "lora_names is missing"),
        ("unload", None, InvalidJob, "takes POST, not GET"),
        ("forget", {}, UnknownRoute, "send list, load or unload"),
    ],
)
async def test_a_wrong_job_changes_nothing(
    it: Running, endpoint: str, payload: Any, error: type[Exception], says: str
) -> None:
    before = await it.loras()
    with pytest.raises(error, match=says):
        await it.job(f"/v1/internal/lora/{endpoint}", payload)
    assert before == await it.loras()


async def test_a_request_can_not_choose_loras_for_itself(it: Running) -> None:
    body = {"prompt": PROMPT, "max_tokens": 2, "lora": [{"id": 0, "scale": 1.0}]}
    with pytest.raises(InvalidJob, match="load LoRAs with /v1/internal/lora/load"):
        await it.job("/v1/completions", body)


async def test_only_an_operator_who_says_so_lets_jobs_change_loras(folder: Path) -> None:
    client = EngineClient(1)
    settings = Settings(loras_dir=folder)
    engine = EmbeddedEngine(settings, catalog(settings), {}, lambda _: None)
    it = Running(engine, engine.answerer(client, Slots(1)))
    try:
        with pytest.raises(EngineRefused, match="MODEL_ADMIN"):
            await it.job("/v1/internal/lora/load", {"lora_names": ["one"]})
    finally:
        await client.close()


async def test_an_unknown_lora_ends_the_start_with_the_ones_that_there_are(folder: Path) -> None:
    with pytest.raises(SettingsError, match="LORA is 'three'; there is no LoRA 'three'; there are"):
        make(folder, lora=("three",))


async def test_a_lora_may_be_named_by_its_path(folder: Path, tmp_path: Path) -> None:
    far = write_gguf(tmp_path / "far.gguf", seed=3)

    assert ["cut", "far", "one", "two"] == make(folder, lora=(str(far),)).lora_names()
