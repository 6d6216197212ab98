"""An engine that does nothing hangs; one that is slow, busy, starved or frozen does not."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.hang import HangWatch, Limits
from worker.processor_time import group_seconds

PATIENCE = 0.05
LIMITS = Limits(still_idle=1, still_busy=3, works_idle=5, works_busy=8)


class Engine:
    """One that works or does nothing; counts how often its processor time was looked at."""

    def __init__(self, *, works: bool | None) -> None:
        self.looks = 0
        self._works = works

    def processor_seconds(self) -> float | None:
        self.looks += 1
        return None if self._works is None else float(self.looks * self._works)


async def never() -> bool:
    await asyncio.Event().wait()
    return True


async def refused() -> bool:
    return False


def watch(
    engine: Engine,
    probe: Callable[[], Awaitable[bool]],
    *,
    idle: bool = True,
    exempt: Callable[[], bool] = lambda: False,
) -> HangWatch:
    return HangWatch(
        engine,
        probe=probe,
        idle=lambda: idle,
        exempt=exempt,
        patience=PATIENCE,
        limits=LIMITS,
    )


# There are two looks in each patience; the first one is what the others are compared with.
@pytest.mark.parametrize(
    ("idle", "works", "patiences"),
    [(True, False, 1), (False, False, 3), (True, True, 5), (False, True, 8), (True, None, 5)],
)
@pytest.mark.parametrize("probe", [never, refused])
async def test_a_silent_engine_hangs_later_while_it_works_or_has_jobs(
    probe: Callable[[], Awaitable[bool]],
    idle: bool,
    works: bool | None,
    patiences: int,
) -> None:
    engine = Engine(works=works)
    await asyncio.wait_for(watch(engine, probe, idle=idle).until_hang(), 20)

    assert 2 * patiences == engine.looks


class Probes:
    """Probes that the test answers: how, one after the other; when they are used up it is told."""

    def __init__(self, *answers: Callable[[], Awaitable[bool]]) -> None:
        self._answers = iter(answers)
        self.over = asyncio.Event()

    async def __call__(self) -> bool:
        answer = next(self._answers, None)
        if answer is None:
            self.over.set()
            return await never()
        return await answer()


async def hangs_before_the_probes_are_over(probes: Probes) -> bool:
    hang = asyncio.ensure_future(watch(Engine(works=False), probes).until_hang())
    over = asyncio.ensure_future(probes.over.wait())
    done, pending = await asyncio.wait(
        {hang, over}, return_when=asyncio.FIRST_COMPLETED, timeout=20
    )
    for task in pending:
        task.cancel()
    assert done
    return hang in done


async def answered() -> bool:
    return True


async def test_an_engine_that_answers_does_not_hang() -> None:
    assert not await hangs_before_the_probes_are_over(Probes(*[answered] * 20))


async def test_a_connection_that_is_refused_once_is_no_hang() -> None:
    assert not await hangs_before_the_probes_are_over(Probes(*[refused, answered] * 10))


async def test_time_in_which_the_worker_itself_was_frozen_does_not_count() -> None:
    async def frozen() -> bool:
        time.sleep(10 * PATIENCE)  # noqa: ASYNC251 - what is tested is a loop that stands still
        await asyncio.sleep(0)
        return True

    assert not await hangs_before_the_probes_are_over(Probes(*[frozen] * 3))


async def test_silence_during_a_load_is_no_hang() -> None:
    loads = True
    engine = Engine(works=False)
    probed = asyncio.Event()

    async def probe() -> bool:
        probed.set()
        return await never()

    hang = asyncio.ensure_future(watch(engine, probe, exempt=lambda: loads).until_hang())
    await asyncio.wait({hang}, timeout=5 * PATIENCE)
    assert (False, False) == (hang.done(), probed.is_set())

    loads = False
    await asyncio.wait_for(hang, 20)


@contextmanager
def spinning() -> Iterator[int]:
    """A process group that uses the processor; its id."""
    argv = [sys.executable, "-c", "while True: pass"]
    child = subprocess.Popen(argv, start_new_session=True)
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def test_a_groups_processor_time_grows_while_it_works_and_not_while_it_is_stopped() -> None:
    deadline = time.monotonic() + 20
    with spinning() as group:
        while not group_seconds(group) and time.monotonic() < deadline:
            os.sched_yield()
        os.kill(group, signal.SIGSTOP)
        os.waitid(os.P_PID, group, os.WSTOPPED | os.WNOWAIT)
        stopped = group_seconds(group)

        assert (True, stopped) == (bool(stopped), group_seconds(group))


def test_processor_time_that_nobody_tells_is_unknown(tmp_path: Path) -> None:
    assert (None, None) == (group_seconds(1, tmp_path), group_seconds(1, tmp_path / "missing"))
