"""Secrets planted everywhere are found nowhere: not in logs, answers, errors or process lists."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chaos.stage import STAND_IN, family
from emulator.server import Emulator, running_emulator
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
PLATFORM_KEY = "rpa_CANARYplatformkey0123456789"
CANARIES = {
    "HF_TOKEN": "hf_CANARYhuggingface0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_CANARYoldname0123456789",
    "OPENAI_API_KEY": "sk-CANARYopenai0123456789",
    "AWS_SECRET_ACCESS_KEY": "CANARYaws0123456789",
    "RUNPOD_API_KEY": "rpa_CANARYaccount0123456789",
}
PROMPT = "CANARYprompt0123456789"
PAYLOAD_KEY = "hf_CANARYpayload0123456789"
ALL = (*CANARIES.values(), PLATFORM_KEY)

JOBS: list[tuple[str, dict[str, Any]]] = [
    ("/model", {"action": "info"}),
    ("/model", {"action": "list"}),
    ("/model", {"action": "load", "model_name": "no such model"}),
    ("/generate", {"prompt": PROMPT}),
    ("/generate", {"prompt": PROMPT, "api_key": PAYLOAD_KEY}),
    ("/generate", {"prompt": PROMPT, "stream": True}),
    ("/generate", {"prompt": PROMPT, "temperature": "hot"}),
    ("/chat", {"user_input": PROMPT}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]}),
    ("/v1/no/such/route", {"prompt": PROMPT, "key": PAYLOAD_KEY}),
    ("/no/such/route", {"prompt": PROMPT}),
]


@dataclass
class Run:
    """A worker with canaries in its environment: what it printed, answered and started."""

    log: str
    answers: list[Any]
    commands: bytes
    engine_environment: bytes
    listens_on: set[str]


@asynccontextmanager
async def running_worker(emulator: Emulator) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **os.environ,
        **emulator.worker_environment("w1"),
        **CANARIES,
        "RUNPOD_ENDPOINT_ID": "local",
        "LOG_LEVEL": "debug",
        "RUNPOD_LOG_LEVEL": "TRACE",
        "ENGINE_PORT": str(free_port()),
        "PYTHONPATH": str(STAND_IN),
    }
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "handler.py",
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield worker
    finally:
        if worker.returncode is None:
            os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()


async def run_worker() -> Run:
    async with (
        running_emulator(worker_key=PLATFORM_KEY) as emulator,
        aiohttp.ClientSession() as http,
        running_worker(emulator) as worker,
    ):
        answers = [await answer_of(http, emulator, *job) for job in JOBS]
        processes = family(worker.pid)
        commands = b"\n".join(read(pid, "cmdline") for pid in (worker.pid, *processes))
        engine = next(pid for pid in processes if b"llama_child" in read(pid, "cmdline"))
        environment = read(engine, "environ")
        listens_on = listening([worker.pid, *processes])
        worker.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(worker.communicate(), 20)
    return Run(output.decode(), answers, commands, environment, listens_on)


async def answer_of(
    http: aiohttp.ClientSession, emulator: Emulator, endpoint: str, payload: Any
) -> Any:
    job = {"input": {"api": {"method": "POST", "endpoint": endpoint}, "payload": payload}}
    async with http.post(f"{emulator.base}/runsync", json=job) as response:
        return await response.json()


def read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def listening(pids: Sequence[int]) -> set[str]:
    """The addresses, as the kernel writes them, on which these processes take connections."""
    links = [link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {str(link.readlink()).removeprefix("socket:[").removesuffix("]") for link in links}
    lines = [line.split() for name in ("tcp", "tcp6") for line in net(name)]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


def net(name: str) -> list[str]:
    return Path(f"/proc/net/{name}").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def run() -> Run:
    return asyncio.run(asyncio.wait_for(run_worker(), 60))


def found(text: str | bytes, *canaries: str) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [canary for canary in canaries if canary.encode() in data]


def test_nothing_listens_but_on_loopback(run: Run) -> None:
    assert {"0100007F"} == run.listens_on


def test_every_job_was_answered(run: Run) -> None:
    statuses = [answer["status"] for answer in run.answers]

    assert ["COMPLETED"] * 2 + ["FAILED"] == statuses[:3]
    assert ["COMPLETED"] * 3 + ["FAILED"] == statuses[3:7]
    assert ["COMPLETED"] * 2 + ["FAILED"] * 2 == statuses[7:]


def test_the_log_holds_no_secret_of_the_environment(run: Run) -> None:
    assert "job" in run.log
    assert [] == found(run.log, *ALL)


def test_the_log_holds_no_prompt_and_no_key_of_a_payload(run: Run) -> None:
    assert [] == found(run.log, PROMPT, PAYLOAD_KEY)


def test_answers_hold_no_secret_of_the_environment(run: Run) -> None:
    assert [] == found(json.dumps(run.answers), *ALL)


def test_model_info_names_no_folder(run: Run) -> None:
    info = json.dumps(run.answers[0]["output"])

    assert [] == found(info, str(ROOT), sys.prefix, str(Path.home()) + "/")


def test_process_lists_hold_no_secret(run: Run) -> None:
    assert b"llama_child" in run.commands
    assert [] == found(run.commands, *ALL, PROMPT, PAYLOAD_KEY)


def test_the_engines_environment_holds_no_secret(run: Run) -> None:
    assert b"PATH=" in run.engine_environment
    assert [] == found(run.engine_environment, *ALL)
    assert b"RUNPOD" not in run.engine_environment
