"""LoRAs on real checkouts: WEBUI_CLASSIC_DIR, WEBUI_CURRENT_DIR, and the Python of each.

Made for SmolLM2-135M-Instruct: WEBUI_CLASSIC_MODEL, WEBUI_CURRENT_MODEL (its GGUF), and, where the
loader is Transformers, WEBUI_CURRENT_TRANSFORMERS_MODEL with WEBUI_CURRENT_TRANSFORMERS_PYTHON.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_classic import Collected, low_port
from tests.lora import write_gguf, write_peft
from worker.answerer import Answerer
from worker.client import EngineClient
from worker.engines.choose import make_engine
from worker.errors import EngineStartFailed, UnknownRoute
from worker.job import parse_job
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

pytestmark = [pytest.mark.webui, pytest.mark.timeout(300)]
KINDS = {
    "classic": ("WEBUI_CLASSIC_DIR", "WEBUI_CLASSIC_PYTHON", "WEBUI_CLASSIC_MODEL", "--cpu"),
    "llama.cpp": ("WEBUI_CURRENT_DIR", "WEBUI_CURRENT_PYTHON", "WEBUI_CURRENT_MODEL", ""),
    "Transformers": (
        "WEBUI_CURRENT_DIR",
        "WEBUI_CURRENT_TRANSFORMERS_PYTHON",
        "WEBUI_CURRENT_TRANSFORMERS_MODEL",
        "--cpu",
    ),
}


@dataclass
class Running:
    answerer: Answerer
    model: str

    async def job(self, endpoint: str, payload: Any = None) -> Any:
        method = "POST" if payload is not None else "GET"
        request = parse_job({"api": {"method": method, "endpoint": endpoint}, "payload": payload})
        return await self.answerer.answer(request, Collected(), Progress())

    async def text(self) -> str:
        greedy = {"do_sample": False, "max_new_tokens": 8}
        answer = await self.job("/generate", {"prompt": "The capital of France is", **greedy})
        text: str = answer["results"][0]["text"]
        return text

    async def loras(self) -> Any:
        return (await self.job("/model", {"action": "info"}))["result"]["lora_names"]


@asynccontextmanager
async def running(kind: str, folder: Path) -> AsyncIterator[Running]:
    """An engine that was started with the LoRA one."""
    checkout, python, model, args = KINDS[kind]
    if not os.environ.get(checkout) or (kind == "Transformers" and not os.environ.get(model)):
        pytest.skip(f"{checkout} or {model} is not set")
    environ = {
        **os.environ,
        "WEBUI_DIR": os.environ[checkout],
        "WEBUI_PYTHON": os.environ.get(python, ""),
        "MODEL": os.environ.get(model, ""),
        "ENGINE_PORT": str(low_port()),
        "ENGINE_ARGS": args,
        "LORA": "one",
        "LORAS_DIR": str(folder),
        "MODEL_ADMIN": "all",
    }
    settings = Settings.from_env(environ)
    engine = make_engine(settings, environ, lambda line: None)
    client = EngineClient(settings.engine_port)
    try:
        engine.spawn()
        await engine.wait_ready(client.session)
        yield Running(engine.answerer(client, Slots(engine.slots)), engine.model_name or "")
    finally:
        await engine.stop(0)
        await client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """LoRAs of both kinds, and one of each that is cut short."""
    for seed, name in enumerate(("one", "two", "cut")):
        write_gguf(tmp_path / f"{name}.gguf", seed=seed)
        write_peft(tmp_path / name, seed=seed)
    for file in (tmp_path / "cut.gguf", tmp_path / "cut" / "adapter_model.safetensors"):
        file.write_bytes(file.read_bytes()[:6000])
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
async def test_loras_are_listed_loaded_and_unloaded(kind: str, folder: Path) -> None:
    async with running(kind, folder) as it:
        assert {"lora_names": ["cut", "one", "two"]} == await it.job("/v1/internal/lora/list")
        texts = {"start": await it.text()}
        for name in ("two", "one"):
            assert "OK" == await it.job("/v1/internal/lora/load", {"lora_names": [name]})
            assert [name] == await it.loras()
            texts[name] = await it.text()
        with pytest.raises(EngineStartFailed, match="broken") as caught:
            await it.job("/v1/internal/lora/load", {"lora_names": ["cut"]})
        assert (["one"], texts["one"]) == (await it.loras(), await it.text())
        with pytest.raises(UnknownRoute, match="there is no LoRA 'no'; there are: cut, one, two"):
            await it.job("/v1/internal/lora/load", {"lora_names": ["no"]})
        await it.job("/v1/internal/lora/unload", {})
        assert [] == await it.loras()
        texts["none"] = await it.text()
        print(kind, caught.value, texts)  # noqa: T201 - shown with -s

        assert texts["start"] == texts["one"]
        assert texts["none"].startswith(" Paris")
        assert 3 == len(set(texts.values()))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_load_may_name_loras_and_several_work_or_are_refused(
    kind: str, folder: Path
) -> None:
    async with running(kind, folder) as it:
        load = {"action": "load", "model_name": it.model}
        named = await it.job("/model", {**load, "args": {"lora": ["two"]}})
        two = await it.text()
        none = await it.job("/model", {**load, "args": {"lora": None}})
        assert (await it.text()).startswith(" Paris")
        again = await it.job("/model", load)
        names = [answer["result"]["lora_names"] for answer in (named, none, again)]
        assert [["two"], [], ["one"]] == names
        one = await it.text()
        both = {"lora_names": ["one", "two"]}
        if kind == "llama.cpp":
            await it.job("/v1/internal/lora/load", both)
            assert await it.text() not in (one, two)
        else:
            with pytest.raises(EngineStartFailed, match="can't put several LoRAs on one model"):
                await it.job("/v1/internal/lora/load", both)
            assert (["one"], one) == (await it.loras(), await it.text())
