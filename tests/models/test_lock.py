"""Workers that share a folder, alive, dead and frozen."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.conftest import BLOCK, LARGE, LARGE_FILE, MODEL, Machine
from tests.models.hub_server import Fault
from tests.models.test_processes import LIMIT, until_part_has, worker
from tests.models.times import LOCK
from worker.model_errors import ModelUnavailable
from worker.model_lock import LockLost, LockTimes, folder_lock
from worker.model_source import Repository

# What filelock writes for an owner on another machine, which is never touched again.
DEAD = f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken={'0' * 32}\nduration={LOCK.stale}\n"
WAITING = "another worker is downloading the model; waiting for it"


def lock(
    folder: Path, times: LockTimes = LOCK, *, seconds: float = 5.0, waiting: threading.Event
) -> AbstractContextManager[Callable[[], None]]:
    return folder_lock(
        folder / "lock", deadline=time.monotonic() + seconds, times=times, waiting=waiting.set
    )


@pytest.fixture
def waiting() -> threading.Event:
    return threading.Event()


def test_a_second_owner_waits_for_the_first(tmp_path: Path, waiting: threading.Event) -> None:
    order = []

    def second() -> None:
        with lock(tmp_path, waiting=waiting):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock(tmp_path, waiting=threading.Event()):
        thread.start()
        assert waiting.wait(5)
        order.append("first")
    thread.join(5)

    assert ["first", "second"] == order


def test_an_owner_that_lives_is_waited_for_until_the_deadline(
    tmp_path: Path, waiting: threading.Event
) -> None:
    said = []

    def second() -> None:
        try:
            with lock(tmp_path, seconds=3 * LOCK.stale, waiting=waiting):
                said.append("two owners")
        except ModelUnavailable as error:
            said.append(str(error))

    thread = threading.Thread(target=second)
    with lock(tmp_path, waiting=waiting) as check:
        thread.start()
        thread.join(10)
        check()

    assert [
        "another worker is still downloading the model; try again or raise MODEL_DOWNLOAD_TIMEOUT"
    ] == said


def test_a_stale_lock_is_broken(tmp_path: Path, waiting: threading.Event) -> None:
    (tmp_path / "lock").write_text(DEAD)

    with lock(tmp_path, waiting=waiting) as check:
        check()

    assert waiting.is_set()
    assert [] == list(tmp_path.iterdir())


def test_an_owner_learns_that_it_lost(tmp_path: Path, waiting: threading.Event) -> None:
    beat = 0.001
    with lock(tmp_path, replace(LOCK, beat=beat), waiting=waiting) as check:
        (tmp_path / "lock").write_text(DEAD)
        time.sleep(2 * beat)
        with pytest.raises(LockLost):
            check()


def test_many_owners_break_a_stale_lock_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(DEAD)
    inside, most = [0], [0]

    def work() -> None:
        with lock(tmp_path, waiting=threading.Event()):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.005)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert [1] == most


def test_a_dead_worker_s_lock_delays_a_download_only(machine: Machine, tiny: Repository) -> None:
    machine.repository.mkdir(parents=True)
    (machine.repository / ".lock").write_text(DEAD)

    assert MODEL == machine.obtain(tiny).read_bytes()
    assert WAITING in machine.lines


def test_a_download_that_lost_its_lock_waits_for_the_other(
    machine: Machine, tiny: Repository
) -> None:
    machine.hub.faults["tiny-Q4_K_M.gguf"].append(Fault("stall", 5000))

    def steal() -> None:
        assert machine.hub.stalled.wait(5)
        (machine.repository / ".lock").write_text(DEAD)

    thief = threading.Thread(target=steal)
    thief.start()
    path = machine.obtain(tiny)
    thief.join(5)

    assert MODEL == path.read_bytes()
    assert "another worker took the download over; waiting for it" in machine.lines


def test_a_worker_that_was_frozen_harms_nothing(machine: Machine) -> None:
    """It still has the file open that the other one has finished meanwhile."""
    machine.hub.faults[LARGE_FILE].append(Fault("stall", BLOCK + 1))
    with worker(machine, "org/large") as frozen:
        until_part_has(machine, BLOCK)
        frozen.send_signal(signal.SIGSTOP)
        with worker(machine, "org/large") as other:
            path = Path(other.communicate(timeout=LIMIT)[0].strip())
        frozen.send_signal(signal.SIGCONT)

        said, log = frozen.communicate(timeout=LIMIT)

    assert str(path) == said.strip()
    assert "another worker took the download over; waiting for it" in log
    assert LARGE == path.read_bytes()
    assert ["", f"bytes={BLOCK}-"] == machine.hub.gets(LARGE_FILE)[:2]
