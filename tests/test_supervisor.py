"""The engine is brought back a few times, keeps its word to those who wait, and then given up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fake_engine import Call, fake_engine
from worker.answerer import Answerer
from worker.client import EngineClient
from worker.errors import EngineBroken, EngineDown, EngineStartFailed, InvalidJob
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots
from worker.stream import Discard, Sink
from worker.supervisor import Supervisor
from worker.watched import Watched

REQUEST = Request("POST", "/generate", {"prompt": "x"}, blocking=True, stream=False)


class Engine:
    """An engine whose deaths the test decides about."""

    slots = 1
    probe_path = "/health"
    work_path: str | None = None
    model_name: str | None = "m"
    model_path = Path("m.gguf")

    def __init__(self) -> None:
        self.spawned = 0
        self.starts = True
        self.aborted = False
        self._died: asyncio.Future[str] | None = None
        self.spawn()

    def spawn(self) -> None:
        self.spawned += 1
        self._died = None

    def die(self, cause: str = "the engine ended: exit code 1") -> None:
        self._future().set_result(cause)

    def _future(self) -> asyncio.Future[str]:
        if self._died is None:
            self._died = asyncio.get_running_loop().create_future()
        return self._died

    async def wait_ready(self, session: aiohttp.ClientSession) -> Mapping[str, float]:
        if not self.starts:
            raise EngineStartFailed("the engine ended: exit code 7")
        return {"model": 0.0}

    async def wait_died(self) -> str:
        return await asyncio.shield(self._future())

    def tail(self) -> list[str]:
        return ["loading /root/models/secret/m.gguf"]

    def processor_seconds(self) -> float:
        return 0.0

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        raise NotImplementedError

    def abort(self) -> None:
        self.aborted = True

    def kill(self) -> None:
        raise NotImplementedError

    async def stop(self, grace: float) -> None:
        raise NotImplementedError


@asynccontextmanager
async def supervised(
    engine: Engine, slots: Slots, *, restarts: int = 1, port: int = 1, probe: float = 60
) -> AsyncIterator[Supervisor]:
    client = EngineClient(port)
    supervisor = Supervisor(engine, client, slots, restarts=restarts, probe_seconds=probe)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def test_an_engine_that_does_not_start_is_lost_at_once() -> None:
    engine = Engine()
    engine.starts = False
    async with supervised(engine, Slots(1)) as supervisor:
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert (1, False) == (engine.spawned, supervisor.ready.is_set())


async def test_a_dead_engine_is_started_again() -> None:
    engine = Engine()
    async with supervised(engine, Slots(1)) as supervisor:
        await asyncio.wait_for(supervisor.ready.wait(), 5)
        await asyncio.sleep(0)
        engine.die()
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.wait_for(supervisor.ready.wait(), 5)

        assert (2, False) == (engine.spawned, supervisor.lost.is_set())


async def test_an_engine_that_dies_too_often_is_lost() -> None:
    engine = Engine()
    async with supervised(engine, Slots(1), restarts=0) as supervisor:
        await asyncio.wait_for(supervisor.ready.wait(), 5)
        engine.die()
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert 1 == engine.spawned


async def test_a_start_again_that_fails_is_tried_again_as_often_as_is_left() -> None:
    engine = Engine()
    async with supervised(engine, Slots(1), restarts=2) as supervisor:
        await asyncio.wait_for(supervisor.ready.wait(), 5)
        engine.starts = False
        engine.die()
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert 3 == engine.spawned


async def test_nothing_is_left_of_an_engine_that_outlived_its_own_child() -> None:
    engine = Engine()
    async with supervised(engine, Slots(1), restarts=0) as supervisor:
        await asyncio.wait_for(supervisor.ready.wait(), 5)
        engine.die("the engine's llama-server ended")
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert engine.aborted


async def test_an_idle_engine_that_nobody_can_connect_to_is_killed() -> None:
    engine = Engine()
    async with supervised(engine, Slots(1), restarts=0, port=1, probe=0.05) as supervisor:
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert ("the engine hangs: it answers nothing any more", True) == (
        supervisor.cause,
        engine.aborted,
    )


async def test_nobody_uses_the_engine_while_it_is_started_again() -> None:
    engine, slots = Engine(), Slots(1)
    spawned: list[int] = []

    async def waits() -> None:
        async with slots.generation():
            spawned.append(engine.spawned)

    async with supervised(engine, slots) as supervisor:
        await asyncio.wait_for(supervisor.ready.wait(), 5)
        async with slots.generation():
            waiting = asyncio.create_task(waits())
            await asyncio.sleep(0)
            engine.die()
            for _ in range(20):
                await asyncio.sleep(0)
        await asyncio.wait_for(waiting, 5)

    assert [2] == spawned


async def test_an_idle_engine_that_does_not_answer_is_killed() -> None:
    async def hangs(call: Call) -> None:
        await call.gone()

    engine = Engine()
    async with (
        fake_engine(hangs) as fake,
        supervised(engine, Slots(1), restarts=0, port=fake.port, probe=0.05) as supervisor,
    ):
        await asyncio.wait_for(supervisor.lost.wait(), 5)

    assert engine.aborted


async def test_an_engine_that_stands_still_under_a_job_is_killed() -> None:
    async def hangs(call: Call) -> None:
        await call.gone()

    engine, slots = Engine(), Slots(1)
    async with (
        fake_engine(hangs) as fake,
        supervised(engine, slots, restarts=0, port=fake.port, probe=0.05) as supervisor,
        slots.generation(),
    ):
        await asyncio.wait_for(supervisor.lost.wait(), 10)

    assert engine.aborted


async def test_an_engine_that_answers_probes_and_generates_nothing_any_more_is_killed() -> None:
    async def stuck(call: Call) -> None:
        await (call.gone() if call.path == "/slots" else call.answer({"status": "ok"}))

    engine = Engine()
    engine.work_path = "/slots"
    async with (
        fake_engine(stuck) as fake,
        supervised(engine, Slots(1), restarts=0, port=fake.port, probe=0.02) as supervisor,
    ):
        await asyncio.wait_for(supervisor.lost.wait(), 10)

    assert ("the engine hangs: it generates nothing any more", True) == (
        supervisor.cause,
        engine.aborted,
    )


async def test_an_engine_that_refuses_the_probe_is_alive() -> None:
    probed = asyncio.Event()

    async def refuses(call: Call) -> None:
        await call.answer({"error": "no"}, status=500)
        if len(fake.calls) > 10:
            probed.set()

    engine = Engine()
    async with (
        fake_engine(refuses) as fake,
        supervised(engine, Slots(1), restarts=0, port=fake.port, probe=0.05) as supervisor,
    ):
        await asyncio.wait_for(probed.wait(), 10)

        assert not supervisor.lost.is_set()


class Recovery:
    """The supervisor as a job sees it."""

    cause: str | None = None

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.lost = asyncio.Event()
        self.ready.set()


class Refuses:
    """An answerer that finds nobody listening, once."""

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise EngineDown("the engine does not answer")
        return "answer"


async def test_a_job_that_found_nobody_listening_waits_for_the_engines_return() -> None:
    engine, recovery = Engine(), Recovery()
    recovery.ready.clear()
    asking = asyncio.create_task(
        Watched(Refuses(), engine, recovery).answer(REQUEST, Discard(), Progress())
    )
    engine.die()
    await asyncio.sleep(0.01)
    waiting = not asking.done()
    recovery.ready.set()

    assert (True, "answer") == (waiting, await asyncio.wait_for(asking, 5))


async def test_a_job_does_not_wait_for_an_engine_that_is_lost() -> None:
    engine, recovery = Engine(), Recovery()
    recovery.ready.clear()
    recovery.lost.set()
    engine.die("the engine ended: exit code 1")
    with pytest.raises(EngineDown, match="exit code 1; send the job again"):
        await Watched(Refuses(), engine, recovery).answer(REQUEST, Discard(), Progress())


class Breaks:
    """An answerer under which the engine dies."""

    def __init__(self, engine: Engine, *, dies: bool) -> None:
        self.engine = engine
        self.dies = dies
        self.asked = 0

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        self.asked += 1
        progress.slot()
        if self.dies:
            self.engine.spawn()
            self.engine.die("the engine ended: killed by signal 9")
        raise EngineBroken("the engine broke off", detail={"partial": "half"})


async def test_a_job_whose_engine_died_is_told_the_cause_and_the_log_without_paths() -> None:
    engine = Engine()
    watched = Watched(Breaks(engine, dies=True), engine, Recovery())
    with pytest.raises(
        EngineDown, match="signal 9, while it worked on this request; send the job again"
    ) as caught:
        await watched.answer(REQUEST, Discard(), Progress())

    assert {"log": ["loading m.gguf"], "partial": "half"} == caught.value.detail


async def test_a_job_whose_engine_was_killed_for_hanging_is_told_that() -> None:
    engine, recovery = Engine(), Recovery()
    recovery.cause = "the engine hangs"
    with pytest.raises(EngineDown, match="the engine hangs, while it worked on this request; send"):
        await Watched(Breaks(engine, dies=True), engine, recovery).answer(
            REQUEST, Discard(), Progress()
        )


async def test_a_job_that_filled_the_memory_is_told_to_ask_for_less() -> None:
    engine, recovery = Engine(), Recovery()
    recovery.cause = "the engine ended: killed by signal 9 (out of memory)"
    with pytest.raises(EngineDown, match="shorten the prompt or ask for fewer tokens"):
        await Watched(Breaks(engine, dies=True), engine, recovery).answer(
            REQUEST, Discard(), Progress()
        )


async def test_a_broken_answer_of_a_living_engine_stays_what_it_is() -> None:
    engine = Engine()
    watched = Watched(Breaks(engine, dies=False), engine, Recovery())
    with pytest.raises(EngineBroken, match="broke off"):
        await watched.answer(REQUEST, Discard(), Progress())


async def test_a_request_that_killed_the_engine_twice_is_refused() -> None:
    engine = Engine()
    breaks = Breaks(engine, dies=True)
    watched = Watched(breaks, engine, Recovery())
    for _ in range(2):
        with pytest.raises(EngineDown):
            await watched.answer(REQUEST, Discard(), Progress())
    with pytest.raises(InvalidJob, match="died 2 times"):
        await watched.answer(REQUEST, Discard(), Progress())

    assert 2 == breaks.asked
