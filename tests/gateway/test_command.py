"""`python -m gateway`: what it says and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from tests.ports import free_port

PROJECT = Path(__file__).parents[2]


async def start(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    names = ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "gateway", *arguments],
        cwd=PROJECT,
        env={**inherited, **environ},
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """The exit code and all that was logged."""
    _, log = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, log.decode()


async def line_with(process: asyncio.subprocess.Process, part: str) -> str:
    """The first logged line that holds this part; "" when there is none."""
    assert process.stderr is not None
    async for line in process.stderr:
        if part in line.decode():
            return line.decode()
    return ""


async def test_an_endpoint_without_a_key_is_one_line_and_exit_code_2() -> None:
    code, log = await ended(await start("--endpoint", "abc123"))
    assert (2, 1) == (code, log.count("\n"))
    assert "set RUNPOD_API_KEY" in log


async def test_a_taken_port_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, log = await ended(await start("--port", str(taken.getsockname()[1])))
    assert (1, 1) == (code, log.count("\n"))
    assert "can't listen" in log


async def test_sigterm_ends_it_with_exit_code_0() -> None:
    process = await start("--port", "0", "--stream-port", "0")
    assert "ws://127.0.0.1:" in await line_with(process, "websockets")
    process.send_signal(signal.SIGTERM)
    assert 0 == (await ended(process))[0]


async def test_an_endpoint_that_does_not_answer_is_told_and_the_gateway_goes_on() -> None:
    url = f"http://127.0.0.1:{free_port()}/v2"
    process = await start("--port", "0", "--stream-port", "0", "--url", url)
    line = await line_with(process, "nothing answers")
    assert ("WARNING" in line, None) == (True, process.returncode)
    process.terminate()
    await ended(process)


async def test_the_key_is_not_in_the_log() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v2"
    options = ["--port", "0", "--stream-port", "0", "--url", url, "--endpoint", "abc123"]
    process = await start(*options, RUNPOD_API_KEY="canary-key")
    seen = await line_with(process, "nothing answers")
    process.terminate()
    assert "canary" not in seen + (await ended(process))[1]
