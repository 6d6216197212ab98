"""A change of the model has the engine to itself, and is never broken off in the middle."""

from __future__ import annotations

import asyncio

import pytest

from worker.changes import Changes
from worker.slots import Slots

LIMIT = 20.0


class Change:
    """One that waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.done = asyncio.Event(), asyncio.Event(), False

    async def __call__(self) -> str:
        self.begun.set()
        await self.go_on.wait()
        self.done = True
        return "changed"


async def test_a_change_waits_for_what_runs_and_gives_its_result() -> None:
    slots, change = Slots(1), Change()
    change.go_on.set()
    async with slots.generation():
        task = asyncio.create_task(Changes(slots).run(change))
        await asyncio.sleep(0)
        assert not change.begun.is_set()

    assert "changed" == await asyncio.wait_for(task, LIMIT)


async def test_a_change_whose_caller_is_gone_goes_on_to_its_end() -> None:
    slots, change = Slots(1), Change()
    task = asyncio.create_task(Changes(slots).run(change))
    await asyncio.wait_for(change.begun.wait(), LIMIT)
    task.cancel()
    await asyncio.wait({task})
    assert (True, True) == (task.cancelled(), slots.changing)
    change.go_on.set()
    async with slots.generation():
        assert change.done


async def test_a_change_whose_caller_is_gone_before_its_turn_never_begins() -> None:
    slots, change = Slots(1), Change()
    async with slots.generation():
        task = asyncio.create_task(Changes(slots).run(change))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    async with slots.generation():
        assert not change.begun.is_set()
    assert slots.idle


async def test_what_a_change_raises_is_its_callers() -> None:
    async def fails() -> None:
        raise ValueError("no")

    slots = Slots(1)
    with pytest.raises(ValueError, match="no"):
        await Changes(slots).run(fails)
    assert slots.idle
