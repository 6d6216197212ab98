"""Slots under any order of coming, going and giving up: never leaked, never shared by too many."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz import PROFILE
from worker.slots import Slots, Use

pytestmark = pytest.mark.timeout(0 if PROFILE.max_examples > 50 else 60)


@dataclass(eq=False)
class User:
    """Somebody who wants the engine until told to leave."""

    use: Use
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    inside: bool = False
    task: asyncio.Task[None] | None = None

    async def live(self, slots: Slots, *, first: bool, clumsy: bool) -> None:
        async with slots.use(self.use, first=first):
            self.inside = True
            try:
                await self.leave.wait()
                if clumsy:
                    raise RuntimeError
            finally:
                self.inside = False


class SlotsMachine(RuleBasedStateMachine):
    """Comes, leaves and cancels, with and without the event loop running in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.slots = Slots(2)
        self.users: list[User] = []

    @rule(use=st.sampled_from(Use), first=st.booleans(), clumsy=st.booleans())
    def come(self, use: Use, first: bool, clumsy: bool) -> None:
        user = User(use)
        user.task = self.loop.create_task(user.live(self.slots, first=first, clumsy=clumsy))
        self.users.append(user)

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        data.draw(st.sampled_from(self.users)).leave.set()

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        data.draw(st.sampled_from(self.users)).task.cancel()

    @rule(turns=st.integers(1, 3))
    def run_a_little(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def run_until_nothing_moves(self) -> None:
        self.run_a_little(20)
        waiting = [user for user in self.alive() if not user.inside]
        inside = [user for user in self.alive() if user.inside]
        assert inside or not waiting

    @invariant()
    def nobody_is_where_somebody_changes_the_model(self) -> None:
        inside = [user.use for user in self.users if user.inside]
        assert inside.count(Use.GENERATION) <= self.slots.count
        assert Use.CHANGE not in inside or 1 == len(inside)

    def alive(self) -> list[User]:
        return [user for user in self.users if user.task is not None and not user.task.done()]

    def teardown(self) -> None:
        tasks = [user.task for user in self.users if user.task is not None]
        for user in self.users:
            user.leave.set()
        self.loop.run_until_complete(asyncio.wait_for(_ended(tasks), 5))
        self.loop.close()
        assert (True, 0) == (self.slots.idle, self.slots.busy)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = PROFILE
