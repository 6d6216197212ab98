"""The two commands of a user without an endpoint, with the real worker and its engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
import websockets

from tests.ports import free_port

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "ENGINE_CONTEXT": "512", "ENGINE_SLOTS": "2"}
REQUEST = {"prompt": "The capital of France is", "max_new_tokens": 8, "do_sample": False}
EMPTY: dict[str, list[Any]] = {"internal": [], "visible": []}


@contextmanager
def command(module: str, *arguments: str, stop: float) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m module` in the project; its output can be read. TERM, wait, KILL."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=stop)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def read_until(process: subprocess.Popen[str], part: str) -> str:
    """The first line that holds this part; the test's own time limit bounds the wait."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if part in line:
            return line
    raise AssertionError("".join(seen))


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Both ports of a gateway before an emulator with a worker that may still be starting."""
    emulator, port, stream_port = free_port(), free_port(), free_port()
    with command("emulator", "--port", str(emulator), stop=30) as platform:
        read_until(platform, "The emulator listens on")
        options = ["--port", str(port), "--stream-port", str(stream_port)]
        url = f"http://127.0.0.1:{emulator}/v2"
        with command("gateway", "--url", url, *options, stop=10) as gateway:
            read_until(gateway, "websockets:")
            yield port, stream_port


def test_a_text_is_generated(ports: tuple[int, int]) -> None:
    url = f"http://127.0.0.1:{ports[0]}/api/v1/generate"
    response = requests.post(url, json=REQUEST, timeout=50)
    assert (200, True) == (response.status_code, "Paris" in response.json()["results"][0]["text"])


async def test_the_websocket_gives_the_same_text(ports: tuple[int, int]) -> None:
    http = f"http://127.0.0.1:{ports[0]}/api/v1/generate"
    plain = await asyncio.to_thread(requests.post, http, json=REQUEST, timeout=50)
    async with websockets.connect(f"ws://127.0.0.1:{ports[1]}/api/v1/stream") as socket:
        await socket.send(json.dumps(REQUEST))
        text = ""
        while (frame := json.loads(await socket.recv()))["event"] != "stream_end":
            text += frame["text"]
    assert plain.json()["results"][0]["text"] == text


async def test_a_chat_is_streamed_as_a_history(ports: tuple[int, int]) -> None:
    request = {"user_input": "Hi", "history": EMPTY, "mode": "instruct", "max_new_tokens": 8}
    async with websockets.connect(f"ws://127.0.0.1:{ports[1]}/api/v1/chat-stream") as socket:
        await socket.send(json.dumps(request))
        first = json.loads(await socket.recv())
    assert "Hi" == first["history"]["internal"][0][0]


def test_the_openai_package_streams_the_same_text(ports: tuple[int, int]) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{ports[0]}/v1", api_key="unused") as client:
        model = client.models.list().data[0].id
        asked: Any = {"model": model, "prompt": "The capital of France is", "temperature": 0}
        plain = client.completions.create(**asked, max_tokens=8)
        stream = client.completions.create(**asked, max_tokens=8, stream=True)
        text = "".join(part.choices[0].text for part in stream if part.choices)
    assert plain.choices[0].text == text
