"""Unmodified workers (the stock SDK) as processes behind the emulator, and how they are kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from emulator.__main__ import parse
from emulator.commands import greeting
from emulator.fleet import FleetOptions
from emulator.limits import Limits
from emulator.server import Emulator, running_emulator
from tests.emulator.helpers import Client, client_session, eventually, stock_fleet

LIMITS = replace(Limits(), poll=5.0)


async def finished(client: Client, job_id: str) -> str:
    """Wait for a job; its status."""
    return str((await client.get(f"/status-sync/{job_id}?wait=30000"))[1]["status"])


def process_groups() -> dict[int, list[int]]:
    """List the ids of all living processes by their group."""
    groups: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                if state != "Z":
                    groups.setdefault(int(group), []).append(int(folder.name))
    return groups


def worker_groups() -> list[int]:
    """List the groups that this process's own workers lead."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    groups = process_groups()
    return [int(child) for child in children if int(child) in groups]


async def ready(emulator: Emulator, count: int) -> None:
    """Wait until so many workers have asked for a job."""
    roster = emulator.endpoint.roster
    await eventually(lambda: count == sum(worker.ready for worker in roster.all()))


async def test_stock_workers_do_jobs_and_leave_no_process_behind(tmp_path: Path) -> None:
    fleet = stock_fleet(tmp_path, count=2)
    async with (
        running_emulator(limits=LIMITS, fleet=fleet) as emulator,
        client_session(emulator) as client,
    ):
        await ready(emulator, 2)
        groups = worker_groups()
        ids = [await client.run(input={"n": number, "seconds": 0.3}) for number in range(8)]
        assert ["COMPLETED"] * 8 == [await finished(client, job_id) for job_id in ids]
        outputs = [emulator.jobs[job_id].result["output"] for job_id in ids]
        assert list(range(8)) == [output["echo"]["n"] for output in outputs]
        _, failed = await client.post("/runsync", {"input": {"raise": True}})
        assert ("FAILED", "this went wrong") == (failed["status"], failed["error"])
        assert 2 == len(groups)
    assert [] == [group for group in groups if group in process_groups()]


async def test_a_stock_generator_worker_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMS", "1")
    async with (
        running_emulator(limits=LIMITS, fleet=stock_fleet(tmp_path)) as emulator,
        client_session(emulator) as client,
    ):
        job_id = await client.run(input={"count": 3})
        assert "COMPLETED" == await finished(client, job_id)
        _, answer = await client.get(f"/stream/{job_id}")
        chunks = [{"number": number} for number in range(3)]
        assert [{"output": chunk} for chunk in chunks] == answer["stream"]
        assert chunks == emulator.jobs[job_id].result["output"]


async def test_a_cancelled_job_is_stopped_in_a_stock_worker(tmp_path: Path) -> None:
    async with (
        running_emulator(limits=LIMITS, fleet=stock_fleet(tmp_path)) as emulator,
        client_session(emulator) as client,
    ):
        await ready(emulator, 1)
        job_id = await client.run(input={"seconds": 60})
        await eventually(lambda: emulator.jobs[job_id].status == "IN_PROGRESS")
        await client.post(f"/cancel/{job_id}")
        assert "COMPLETED" == await finished(client, await client.run(input={}))


async def test_a_killed_worker_is_replaced_and_every_job_ends_once(tmp_path: Path) -> None:
    async with (
        running_emulator(limits=LIMITS, fleet=stock_fleet(tmp_path)) as emulator,
        client_session(emulator) as client,
    ):
        await ready(emulator, 1)
        ids = [await client.run(input={"seconds": 0.2}) for _ in range(20)]
        await eventually(lambda: emulator.jobs[ids[0]].status == "IN_PROGRESS")
        (group,) = worker_groups()
        os.kill(group, signal.SIGKILL)
        assert ["COMPLETED"] * 20 == [await finished(client, job_id) for job_id in ids]
        health = emulator.endpoint.health()["jobs"]
        assert (20, True) == (health["completed"], health["retried"] > 0)
        assert group not in process_groups()


async def test_a_job_that_kills_three_workers_fails(tmp_path: Path) -> None:
    async with (
        running_emulator(limits=LIMITS, fleet=stock_fleet(tmp_path)) as emulator,
        client_session(emulator) as client,
    ):
        job_id = await client.run(input={"die": True})
        assert "FAILED" == await finished(client, job_id)
        assert 3 == emulator.jobs[job_id].tries


async def test_a_worker_that_ignores_term_is_killed_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.sh"
    started = tmp_path / "started"
    script.write_text(f"trap '' TERM\nsleep 600 &\ntouch {started}\nwait\nsleep 600\n")
    fleet = FleetOptions(command=["sh", str(script)], folder=tmp_path, grace=0.2)
    async with running_emulator(fleet=fleet):
        await eventually(started.exists)
        (group,) = worker_groups()
    assert group not in process_groups()


async def test_a_worker_that_asks_to_be_replaced_is(tmp_path: Path) -> None:
    fleet = FleetOptions(command=["sleep", "600"], folder=tmp_path, grace=5, pause=0.01)
    async with running_emulator(fleet=fleet) as emulator:
        await eventually(lambda: bool(worker_groups()))
        emulator.endpoint.refresh("worker-1")
        roster = emulator.endpoint.roster
        await eventually(lambda: ["worker-2"] == [worker.id for worker in roster.all()])


async def test_a_silent_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    limits = replace(Limits(), start_timeout=0.2)
    fleet = FleetOptions(command=["sleep", "600"], folder=tmp_path, pause=0.01)
    async with running_emulator(limits=limits, fleet=fleet) as emulator:
        await eventually(lambda: emulator.endpoint.roster.get("worker-3") is not None)


async def test_a_command_that_does_not_exist_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FleetOptions(command=["/nowhere"], folder=tmp_path, pause=0.01)
    async with running_emulator(fleet=fleet):
        await eventually(lambda: caplog.text.count("ended with code 127") >= 3)


async def test_the_command_line_serves_until_sigterm(tmp_path: Path) -> None:
    script = stock_fleet(tmp_path).command[1]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "emulator", "--port", "0", "--api-key", "canary-key"],
        *["--worker-command", f"{sys.executable} {script}", "--grace", "5"],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readline(), 20)
        process.terminate()
        rest = await asyncio.wait_for(process.stdout.read(), 20)
        assert 0 == await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert first.startswith(b"The emulator listens on http://127.0.0.1:")
    assert b"canary-key" not in first + rest


@pytest.mark.parametrize("with_key", [False, True])
def test_the_greeting_has_a_command_for_each_client(with_key: bool) -> None:
    text = greeting("http://h:1", "local", with_key=with_key)
    assert [1, 1, 1] == [
        text.count(word) for word in ("  curl ", "runpod.Endpoint", "openai.OpenAI")
    ]
    assert with_key == ("RUNPOD_API_KEY" in text)
    assert "Page: http://h:1/\nChat: ./start.sh chat --url http://h:1/v2" in text


def test_the_greeting_of_the_default_emulator_needs_no_options_to_chat() -> None:
    text = greeting("http://127.0.0.1:8000", "local", with_key=False)
    assert "Chat: ./start.sh chat\n" in text


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ü"])
def test_an_endpoint_id_is_letters_digits_and_hyphens(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--endpoint-id", name])
    assert "use letters" in capsys.readouterr().err
