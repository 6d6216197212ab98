"""Slots are given first come, first served, and no model changes under a running generation."""

import asyncio

from worker.slots import Slots, Use


class Visitors:
    """Named uses of the slots, let go one by one."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, use: Use) -> None:
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._visit(name, use))
        await settle()

    async def _visit(self, name: str, use: Use) -> None:
        async with self.slots.use(use):
            self.inside.append(name)
            await self._leave[name].wait()
            self.inside.remove(name)

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, *names: str) -> None:
        tasks = [self._tasks[name] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_generations_than_slots_and_in_order() -> None:
    visitors = Visitors(Slots(2))
    for name in "abcd":
        await visitors.come(name, Use.GENERATION)
    before = list(visitors.inside)
    await visitors.go("b")

    assert (["a", "b"], ["a", "c"]) == (before, visitors.inside)


async def test_counting_tokens_never_waits_behind_a_generation() -> None:
    visitors = Visitors(Slots(1))
    await visitors.come("running", Use.GENERATION)
    await visitors.come("waiting", Use.GENERATION)
    await visitors.come("count", Use.MODEL)

    assert ["running", "count"] == visitors.inside


async def test_a_change_waits_for_all_and_holds_back_all_that_come_later() -> None:
    visitors = Visitors(Slots(2))
    await visitors.come("old", Use.GENERATION)
    await visitors.come("change", Use.CHANGE)
    await visitors.come("new", Use.GENERATION)
    await visitors.come("count", Use.MODEL)
    before = list(visitors.inside)
    await visitors.go("old")
    during = list(visitors.inside)
    await visitors.go("change")

    assert (["old"], ["change"], ["new", "count"]) == (before, during, visitors.inside)


async def test_a_cancelled_wait_leaves_its_place_to_the_next() -> None:
    visitors = Visitors(Slots(1))
    for name in "abc":
        await visitors.come(name, Use.GENERATION)
    await visitors.cancel("b")
    await visitors.go("a")

    assert ["c"] == visitors.inside


async def test_a_cancelled_generation_frees_its_slot() -> None:
    visitors = Visitors(Slots(1))
    await visitors.come("a", Use.GENERATION)
    await visitors.come("b", Use.GENERATION)
    visitors.inside.clear()
    await visitors.cancel("a")

    assert ["b"] == visitors.inside


async def test_all_cancelled_at_once_leave_all_slots_free() -> None:
    visitors = Visitors(Slots(1))
    for name in "abc":
        await visitors.come(name, Use.GENERATION)
    await visitors.cancel(*"abc")
    visitors.inside.clear()
    await visitors.come("d", Use.GENERATION)

    assert ["d"] == visitors.inside


async def test_a_turn_given_in_the_moment_of_its_cancellation_is_given_back() -> None:
    slots = Slots(1)
    visitors = Visitors(slots)
    await visitors.come("a", Use.GENERATION)
    waiting = asyncio.create_task(visitors._visit("b", Use.GENERATION))  # noqa: SLF001  # a test of the race itself
    await settle()
    visitors._leave["a"].set()  # noqa: SLF001  # a test of the race itself
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await settle()

    assert 0 == slots.busy


async def test_stop_all_asks_every_running_generation() -> None:
    slots = Slots(2)
    async with slots.generation() as first, slots.generation() as second:
        closed: list[str] = []
        first.on_request(lambda: closed.append("first"))
        slots.stop_all()
        second.on_request(lambda: closed.append("second"))

    assert ["first", "second"] == closed
