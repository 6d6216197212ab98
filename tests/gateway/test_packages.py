"""Unmodified packages that speak to text-generation-webui: oobabot's client and `llm`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.gateway.helpers import MODEL, TEXT, answer, running

# What oobabot itself does with its client, sentences put together again.
OOBABOT = """
import asyncio, sys
from oobabot import fancy_logger, ooba_client

fancy_logger.init_logging(0, False)
client = ooba_client.OobaClient({
    "base_url": sys.argv[1],
    "message_regex": "",
    "log_all_the_things": False,
    "request_params": {"max_new_tokens": 8, "stopping_strings": ["\\n"]},
})
client.test_connection()

async def ask():
    async with client:
        return await client.request_as_string("The capital of France is")

print(asyncio.run(ask()), end="")
"""


async def run(*arguments: str, **environ: str) -> tuple[int | None, str]:
    """Run this Python with these arguments; its exit code and what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, printed.decode()


async def test_oobabots_client_works() -> None:
    async with running(answer) as setup:
        assert (0, TEXT) == await run("-c", OOBABOT, setup.gateway.stream_url)


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
async def test_llm_works_with_an_entry_of_its_own(tmp_path: Path, options: list[str]) -> None:
    async with running(answer) as setup:
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: runpod\n  model_name: {MODEL}\n  api_base: {setup.gateway.url}/v1\n"
        )
        environ = {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
        code, printed = await run("-m", "llm", "-m", "runpod", *options, "Hi", **environ)
    assert (0, TEXT) == (code, printed.removesuffix("\n"))
