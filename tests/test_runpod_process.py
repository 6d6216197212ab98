"""The job loops as a process of their own: signals, heartbeat, being frozen, being killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_platform import FakePlatform, worker_process

STOPPED = "the worker was stopped before the job was done; send it again"


@pytest.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    async with FakePlatform().serving() as platform:
        yield platform


def job(job_id: str, **script: Any) -> dict[str, Any]:
    return {"id": job_id, "input": script}


def processes_of(group: int) -> set[int]:
    """Living processes of a process group."""
    living = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if int(fields[2]) == group and fields[0] != "Z":
            living.add(int(entry.name))
    return living


async def until_taking(platform: FakePlatform, takes: int = 1) -> None:
    await platform.until(lambda: platform.count("job-take") >= takes and bool(platform.pings), 30)


async def ended(worker: Process, timeout: float) -> int:
    return await asyncio.wait_for(worker.wait(), timeout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_worker_is_gone_soon_after_a_signal(
    platform: FakePlatform, number: signal.Signals
) -> None:
    async with worker_process(platform) as worker:
        await until_taking(platform)
        started = time.monotonic()
        worker.send_signal(number)
        assert 0 == await ended(worker, 5)
        assert time.monotonic() - started < 4
        assert set() == processes_of(worker.pid)


async def test_running_jobs_are_finished_after_a_signal_and_no_new_one_is_taken(
    platform: FakePlatform,
) -> None:
    async with worker_process(platform, capacity=2) as worker:
        await until_taking(platform)
        await platform.submit(job("j1", seconds=1.5), job("j2", chunks=3, gap=0.5))
        await platform.until(lambda: bool(platform.chunks))
        worker.terminate()
        await platform.until(lambda: len(platform.results) == 2)
        await platform.submit(job("j3"))
        assert 0 == await ended(worker, 5)
        assert {"j1", "j2"} == set(platform.results)


async def test_a_job_that_comes_just_after_the_signal_is_run(platform: FakePlatform) -> None:
    async with worker_process(platform, limits={"window": 3.0}) as worker:
        await until_taking(platform)
        worker.terminate()
        await asyncio.sleep(0.3)  # the worker tells nobody that it has the signal
        await platform.submit(job("j1", seconds=0.1))
        assert {"output": {"seconds": 0.1}} == await platform.result("j1")
        assert 0 == await ended(worker, 2)


async def test_jobs_that_outlast_the_grace_period_are_failed(platform: FakePlatform) -> None:
    async with worker_process(platform, capacity=2, grace=0.3) as worker:
        await until_taking(platform)
        await platform.submit(job("j1", seconds=30), job("j2", chunks=1, seconds=30))
        await platform.until(lambda: bool(platform.chunks))
        worker.terminate()
        assert 0 == await ended(worker, 5)
        assert {"j1": STOPPED, "j2": STOPPED} == {
            job_id: result["error"] for job_id, result in platform.results.items()
        }
        assert {"j1": False, "j2": True} == platform.streamed


async def test_a_second_signal_ends_the_worker_at_once(platform: FakePlatform) -> None:
    async with worker_process(platform, capacity=2, grace=60) as worker:
        await until_taking(platform)
        await platform.submit(job("j1", seconds=30))
        await until_taking(platform, 2)
        worker.terminate()
        await asyncio.sleep(0.1)  # else the two signals are one
        worker.terminate()
        assert 1 == await ended(worker, 5)
        assert set() == processes_of(worker.pid)


async def test_pings_name_the_jobs_in_progress(platform: FakePlatform) -> None:
    async with worker_process(platform):
        await platform.submit(job("j1", seconds=30))
        await platform.until(lambda: any(ping.get("job_id") == "j1" for ping in platform.pings), 30)
        await platform.stop("j1")
        await platform.until(lambda: "job_id" not in platform.pings[-1])


async def test_a_killed_worker_leaves_no_ping_process(platform: FakePlatform) -> None:
    async with worker_process(platform) as worker:
        await until_taking(platform)
        assert 2 == len(processes_of(worker.pid))
        worker.kill()
        await worker.wait()
        end = time.monotonic() + 5
        while processes_of(worker.pid) and time.monotonic() < end:  # noqa: ASYNC110  # not ours
            await asyncio.sleep(0.02)
        assert set() == processes_of(worker.pid)


async def test_pings_go_on_after_the_death_of_the_pinging_process(platform: FakePlatform) -> None:
    async with worker_process(platform) as worker:
        await until_taking(platform)
        (pinging,) = processes_of(worker.pid) - {worker.pid}
        os.kill(pinging, signal.SIGKILL)
        pings = len(platform.pings)
        await platform.until(lambda: len(platform.pings) > pings + 1, 30)
        worker.terminate()
        assert 0 == await ended(worker, 5)
        assert set() == processes_of(worker.pid)


async def test_a_worker_that_was_frozen_goes_on(platform: FakePlatform) -> None:
    """All its deadlines have passed and its connections are dead when it is thawed."""
    platform.hold = 0.5
    async with worker_process(platform, capacity=2, limits={"poll": 1.0, "post": 1.0}) as worker:
        await platform.submit(job("j1", seconds=1))
        await until_taking(platform, 2)
        os.killpg(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # longer than the worker's own time limits
        os.killpg(worker.pid, signal.SIGCONT)
        await platform.submit(job("j2"))
        await platform.until(lambda: {"j1", "j2"} <= set(platform.results))


async def test_a_job_that_was_handed_out_while_the_worker_was_frozen_is_run(
    platform: FakePlatform,
) -> None:
    async with worker_process(platform, limits={"poll": 1.5}) as worker:
        await until_taking(platform)
        os.killpg(worker.pid, signal.SIGSTOP)
        await platform.submit(job("j1"))
        await asyncio.sleep(2.0)  # longer than the worker's limit for the poll
        os.killpg(worker.pid, signal.SIGCONT)
        await platform.result("j1")


async def test_the_stock_loop_answers_plain_and_streamed_jobs_alike(
    platform: FakePlatform,
) -> None:
    async with worker_process(platform, stock=True, capacity=4):
        await platform.submit(
            job("j1", text="é"), job("j2", chunks=3, gap=0.01), {"id": "j3", "input": 7}
        )
        await platform.until(lambda: len(platform.results) == 3, 30)
    assert {"output": {"text": "é"}} == platform.results["j1"]
    assert {"output": {"chunks": 3, "gap": 0.01}} == platform.results["j2"]
    assert "the job's input must be an object" == platform.results["j3"]["error"]
    assert "w0 w1 w2 " == "".join(platform.chunks["j2"])
    assert {"j1": False, "j2": True, "j3": False} == platform.streamed


async def test_the_stock_loop_stops_a_job(platform: FakePlatform) -> None:
    async with worker_process(platform, stock=True, capacity=4) as worker:
        await platform.submit(job("j1", chunks=1, seconds=30))
        await platform.until(lambda: bool(platform.chunks), 30)
        await platform.stop("j1")
        assert worker.stdout is not None
        async for line in worker.stdout:
            if line == b"cancelled j1\n":
                break
        await platform.submit(job("j2"))
        await platform.result("j2")
        assert {"j2"} == set(platform.results)


async def test_the_stock_loop_ends_after_its_grace_period(platform: FakePlatform) -> None:
    async with worker_process(platform, stock=True, capacity=4, grace=1.0) as worker:
        await until_taking(platform)
        worker.terminate()
        assert 0 == await ended(worker, 4)
        assert set() == processes_of(worker.pid)


async def test_the_stock_loop_ends_with_an_error_when_the_engine_is_dead(
    platform: FakePlatform,
) -> None:
    async with worker_process(platform, stock=True, capacity=4, fatal_after=0.5) as worker:
        assert 1 == await ended(worker, 20)
