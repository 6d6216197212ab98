"""Unmodified packages that not every environment has: oobabot's client and `llm`."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest

from tests.gateway.helpers import MODEL, TEXT, answer, running


async def test_oobabots_client_works() -> None:
    client_module = pytest.importorskip("oobabot.ooba_client")
    importlib.import_module("oobabot.fancy_logger").init_logging(0, False)
    async with running(answer) as setup:
        settings = {
            "base_url": setup.gateway.stream_url,
            "message_regex": "",
            "log_all_the_things": False,
            "request_params": {"max_new_tokens": 8, "stopping_strings": ["\n"]},
        }
        client = client_module.OobaClient(settings)
        await asyncio.to_thread(client.test_connection)
        async with client:
            assert TEXT == await client.request_as_string("The capital of France is")


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
async def test_llm_works_with_an_entry_of_its_own(tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("llm")
    async with running(answer) as setup:
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: runpod\n  model_name: {MODEL}\n  api_base: {setup.gateway.url}/v1\n"
        )
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "llm", "-m", "runpod", *options, "Hi"],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 40)
    assert (TEXT, 0) == (printed.decode().removesuffix("\n"), process.returncode)
