"""The worker's end, and what becomes of its jobs: nothing is lost and nothing survives it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from emulator.faults import Faults
from emulator.fleet import FleetOptions
from emulator.server import running_emulator
from tests.e2e.conftest import ROOT, Client, Platform, running_platform

pytestmark = pytest.mark.timeout(120)
LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}
SHORT = {"prompt": "Once upon a time", "max_new_tokens": 60, "ban_eos_token": True}


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, before = {pid}, set[int]()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/stat").exists()}


async def end(platform: Platform, number: signal.Signals = signal.SIGTERM) -> tuple[float, int]:
    """Signal the worker; the seconds until it is gone and its exit code."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    platform.worker.send_signal(number)
    code = await asyncio.wait_for(platform.worker.wait(), 60)
    return loop.time() - started, code


async def test_an_idle_worker_is_gone_in_about_a_second_and_nothing_survives() -> None:
    async with running_platform("event") as platform:
        processes = family(platform.worker.pid)
        seconds, code = await end(platform)

    print(f"SIGTERM idle: {seconds:.2f} s")  # noqa: T201  # shown with -s
    assert (0, set()) == (code, alive(processes))
    assert len(processes) >= 3
    assert seconds < 4  # 1.2 s on an idle machine


async def test_a_running_job_is_finished_within_the_grace_period() -> None:
    async with running_platform("event") as platform:
        job = await platform.run("/generate", **SHORT)
        await platform.until_busy(1)
        seconds, code = await end(platform)
        result = await platform.result(job)

    print(f"SIGTERM busy: {seconds:.2f} s")  # noqa: T201  # shown with -s
    assert (0, "COMPLETED") == (code, result["status"])


async def test_a_job_that_does_not_end_in_time_is_failed_and_told_to_be_sent_again() -> None:
    async with running_platform("event", WORKER_GRACE_PERIOD="0.5") as platform:
        processes = family(platform.worker.pid)
        job = await platform.run("/generate", stream=True, **LONG)
        await platform.until_busy(1)
        seconds, code = await end(platform)
        result = await platform.result(job)

    print(f"SIGTERM mid-stream, 0.5 s of grace: {seconds:.2f} s")  # noqa: T201  # shown with -s
    assert (0, "FAILED", set()) == (code, result["status"], alive(processes))
    assert "send it again" in result["error"]


async def test_a_killed_worker_leaves_no_process() -> None:
    async with running_platform("event") as platform:
        processes = family(platform.worker.pid)
        await end(platform, signal.SIGKILL)

        async def gone() -> None:
            while alive(processes):  # noqa: ASYNC110  # orphans tell nobody when they end
                await asyncio.sleep(0.02)

        await asyncio.wait_for(gone(), 10)


def engine_of(platform: Platform) -> int:
    return next(pid for pid in family(platform.worker.pid) if "llama_child" in command(pid))


async def test_a_dead_engine_fails_its_job_at_once_with_the_cause_and_comes_back() -> None:
    async with running_platform("event") as platform:
        job = await platform.run("/generate", **LONG)
        await platform.until_busy(1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        os.kill(engine_of(platform), signal.SIGKILL)
        result = await platform.result(job)
        failed_after = loop.time() - started
        after = await platform.runsync("/generate", prompt="Hello", max_new_tokens=1)

    print(f"engine SIGKILL to FAILED: {failed_after:.2f} s")  # noqa: T201  # shown with -s
    assert ("FAILED", True, "COMPLETED") == (
        result["status"],
        "killed by signal 9" in result["error"],
        after["status"],
    )
    assert failed_after < 2


async def test_a_worker_whose_engine_does_not_come_back_ends_with_an_error() -> None:
    async with running_platform("event", ENGINE_RESTARTS="0") as platform:
        os.kill(engine_of(platform), signal.SIGKILL)
        code = await asyncio.wait_for(platform.worker.wait(), 20)

    assert 1 == code


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


async def test_a_cancel_while_a_chunk_is_being_posted_frees_the_slot() -> None:
    slow = Faults(delays={"job-stream": 5.0})
    async with running_platform("event", faults=slow) as platform:
        job = await platform.run("/generate", stream=True, **LONG)
        await platform.until_busy(1)
        await asyncio.sleep(0.3)
        await platform.post(f"cancel/{job}")
        seconds = await platform.until_busy(0)

    print(f"cancel while a chunk is posted: {seconds:.3f} s")  # noqa: T201  # shown with -s
    assert seconds < 1


async def test_queued_jobs_of_a_killed_worker_all_complete_once() -> None:
    fleet = FleetOptions(command=(sys.executable, "handler.py"), folder=ROOT)
    async with running_emulator(fleet=fleet) as emulator, aiohttp.ClientSession() as http:
        client = Client(emulator, http)
        payload = {"prompt": "Hello", "max_new_tokens": 12, "seed": 1}
        jobs = [await client.run("/generate", **payload) for _ in range(20)]
        await client.result(jobs[0], 60)
        os.kill(worker_of(os.getpid()), signal.SIGKILL)
        results = [await client.result(job, 100) for job in jobs]

    assert ["COMPLETED"] * 20 == [result["status"] for result in results]


def worker_of(pid: int) -> int:
    """The youngest worker among the descendants of a process."""
    return max(child for child in family(pid) if "handler.py" in command(child))


async def test_an_engine_that_dies_after_a_load_comes_back_too() -> None:
    async with running_platform("event") as platform:
        name = (await platform.runsync("/model"))["output"]["result"]
        await platform.runsync("/model", action="load", model_name=name)
        before = engine_of(platform)
        os.kill(before, signal.SIGKILL)
        # This one may find a connection that the dead engine had kept, and is told so.
        await platform.runsync("/generate", prompt="Hello", max_new_tokens=1)
        answer = await platform.runsync("/generate", prompt="Hello", max_new_tokens=1)
        after = engine_of(platform)

    assert ("COMPLETED", True) == (answer["status"], before != after)


async def test_a_killed_emulator_takes_its_workers_and_their_engines_along() -> None:
    emulator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "emulator", "--port", "0"), cwd=ROOT, start_new_session=True
    )

    async def started() -> set[int]:
        while True:
            members = family(emulator.pid)
            if any("llama_child" in command(pid) for pid in members):
                return members
            await asyncio.sleep(0.05)

    async def gone(pids: set[int]) -> None:
        while alive(pids):  # noqa: ASYNC110  # orphans tell nobody when they end
            await asyncio.sleep(0.02)

    members = await asyncio.wait_for(started(), 20)
    emulator.kill()
    await emulator.wait()

    await asyncio.wait_for(gone(members), 10)
