"""Workers that share a folder, alive, dead and frozen."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.conftest import MODEL, Machine
from tests.models.hub_server import Fault
from tests.models.times import LOCK
from worker.model_errors import ModelUnavailable
from worker.model_lock import FolderLock, LockLost, LockTimes
from worker.model_source import Repository

# Never touched while a test runs: an owner that is frozen.
FROZEN = LockTimes(beat=60, stale=0.2, look=0.01)


def lock(
    folder: Path, times: LockTimes = LOCK, *, seconds: float = 5.0, waiting: threading.Event
) -> FolderLock:
    return FolderLock(
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


def test_an_owner_that_lives_is_never_broken(tmp_path: Path, waiting: threading.Event) -> None:
    with (
        lock(tmp_path, waiting=waiting) as owner,
        pytest.raises(ModelUnavailable, match="still downloading"),
        lock(tmp_path, seconds=3 * LOCK.stale, waiting=waiting),
    ):
        raise AssertionError("two owners")
    owner.check()


def test_a_stale_lock_is_broken(tmp_path: Path, waiting: threading.Event) -> None:
    (tmp_path / "lock").write_text("a dead owner")

    with lock(tmp_path, waiting=waiting) as owner:
        owner.check()

    assert [] == list(tmp_path.iterdir())


def test_an_owner_that_was_frozen_learns_that_it_lost(
    tmp_path: Path, waiting: threading.Event
) -> None:
    frozen = replace(FROZEN, beat=0.001)
    with lock(tmp_path, FROZEN, waiting=waiting) as owner:
        with lock(tmp_path, frozen, waiting=waiting):
            owner._times = frozen  # noqa: SLF001 - so that its last touch is long ago
            with pytest.raises(LockLost):
                owner.check()
        assert [] == list(tmp_path.iterdir())


def test_a_judgement_that_is_out_of_date_breaks_nothing(
    tmp_path: Path, waiting: threading.Event
) -> None:
    with lock(tmp_path, waiting=waiting) as owner:
        lock(tmp_path, waiting=waiting)._break("1 a dead owner")  # noqa: SLF001 - the race itself
        owner.check()

        assert ["lock"] == [path.name for path in tmp_path.iterdir()]


def test_one_who_died_while_breaking_is_not_waited_for(
    tmp_path: Path, waiting: threading.Event
) -> None:
    (tmp_path / "lock").write_text("a dead owner")
    (tmp_path / "lock.break").touch()

    with lock(tmp_path, waiting=waiting) as owner:
        owner.check()

    assert [] == list(tmp_path.iterdir())


def test_many_owners_break_a_stale_lock_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a dead owner")
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
    (machine.repository / ".lock").write_text("a dead owner")

    assert MODEL == machine.obtain(tiny).read_bytes()
    assert "another worker is downloading the model; waiting for it" in machine.lines


def test_a_download_that_lost_its_lock_waits_for_the_other(
    machine: Machine, tiny: Repository
) -> None:
    """The lock vanishes in mid-download, as when others broke it while this process was frozen."""
    machine.hub.faults["tiny-Q4_K_M.gguf"].append(Fault("stall", 5000))

    def steal() -> None:
        assert machine.hub.stalled.wait(5)
        (machine.repository / ".lock").write_text("another owner")

    thief = threading.Thread(target=steal)
    thief.start()
    path = machine.obtain(tiny)
    thief.join(5)

    assert MODEL == path.read_bytes()
    assert "another worker took the download over; waiting for it" in machine.lines
