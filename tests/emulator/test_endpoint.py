"""The state machine, on a clock that is moved by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from emulator.endpoint import Taker
from emulator.errors import Refused
from emulator.jobs import Job
from emulator.limits import Limits
from tests.emulator.helpers import Clock, endpoint, submission


def test_a_job_goes_from_the_queue_to_its_answer_with_its_times() -> None:
    clock = Clock()
    state = endpoint(clock)
    job = state.submit(submission(), sync=False)
    queued = job.answer()
    clock.now += 1.5
    state.take(state.roster.seen("w"), 1)
    clock.now += 0.25
    state.finish(job, {"output": [1]}, 3)
    assert {"id": job.id, "status": "IN_QUEUE"} == queued
    assert {
        "id": job.id,
        "status": "COMPLETED",
        "delayTime": 1500,
        "executionTime": 250,
        "workerId": "w",
        "output": [1],
    } == job.answer()


def test_a_worker_gets_the_whole_request_and_the_id() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(webhook="http://x/y", s3Config={"a": 1}), sync=False)
    taken = state.take(state.roster.seen("w"), 1)[0]
    expected = {"id": job.id, "input": {}, "webhook": "http://x/y", "s3Config": {"a": 1}}
    assert expected == json.loads(taken.payload)


def test_an_id_in_the_request_does_not_replace_the_job_id() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(id="mine"), sync=False)
    assert job.id == json.loads(job.payload)["id"]


@pytest.mark.parametrize(("sync", "prefix"), [(True, "sync-"), (False, "")])
def test_runsync_ids_begin_with_sync(sync: bool, prefix: str) -> None:
    job = endpoint(Clock()).submit(submission(), sync=sync)
    assert (prefix == "sync-") == job.id.startswith("sync-")


def test_jobs_are_taken_in_the_order_they_came_and_never_twice() -> None:
    state = endpoint(Clock())
    jobs = [state.submit(submission(), sync=False) for _ in range(5)]
    worker = state.roster.seen("w")
    assert [jobs[:2], jobs[2:], []] == [state.take(worker, n) for n in (2, 9, 9)]


def test_waiting_takers_are_served_in_the_order_they_came_one_job_each() -> None:
    state = endpoint(Clock())
    served: list[tuple[str, list[Job]]] = []
    for name in ("a", "b"):
        state.wait(
            Taker(state.roster.seen(name), 5, lambda jobs, name=name: served.append((name, jobs)))  # type: ignore[misc]  # a default binds the loop's name
        )
    jobs = [state.submit(submission(), sync=False) for _ in range(2)]
    assert [("a", jobs[:1]), ("b", jobs[1:])] == served


def test_jobs_given_back_are_first_again_and_their_try_does_not_count() -> None:
    state = endpoint(Clock())
    jobs = [state.submit(submission(), sync=False) for _ in range(3)]
    worker = state.roster.seen("w")
    state.give_back(state.take(worker, 2), worker)
    assert [0, 0] == [job.tries for job in jobs[:2]]
    assert jobs == state.take(worker, 3)


def test_jobs_of_a_dead_worker_are_first_again_in_their_order() -> None:
    state = endpoint(Clock())
    jobs = [state.submit(submission(), sync=False) for _ in range(3)]
    state.take(state.roster.seen("w1"), 2)
    state.retire("w1")
    assert jobs == state.take(state.roster.seen("w2"), 3)
    assert 2 == state.health()["jobs"]["retried"]


def test_a_job_whose_workers_die_three_times_fails() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    for number in range(3):
        state.take(state.roster.seen(f"w{number}"), 1)
        state.retire(f"w{number}")
    assert "FAILED" == job.status
    assert "the worker stopped 3 times" in job.answer()["error"]


def test_a_dead_worker_is_not_taken_back() -> None:
    state = endpoint(Clock())
    state.roster.seen("w")
    state.retire("w")
    with pytest.raises(Refused) as refused:
        state.roster.seen("w")
    assert 410 == refused.value.status


def test_a_queued_job_is_cancelled_and_never_taken() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    state.cancel(job)
    assert "CANCELLED" == job.status
    assert [] == state.take(state.roster.seen("w"), 1)


def test_cancelling_a_running_job_tells_its_worker_to_stop_it() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    worker = state.roster.seen("w")
    state.take(worker, 1)
    state.cancel(job)
    assert ("CANCELLED", [job.id]) == (job.status, list(worker.stops))


def test_a_late_result_of_a_cancelled_job_is_nobodys() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    state.take(state.roster.seen("w"), 1)
    state.cancel(job)
    assert None is state.running_job(job.id, "w")


def test_cancelling_a_job_that_has_its_answer_changes_nothing() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    state.take(state.roster.seen("w"), 1)
    state.finish(job, {"output": 1}, 1)
    state.cancel(job)
    assert "COMPLETED" == job.status


def test_the_execution_timeout_runs_from_the_take() -> None:
    clock = Clock()
    state = endpoint(clock)
    job = state.submit(submission(policy={"executionTimeout": 5000}), sync=False)
    clock.now += 100
    worker = state.roster.seen("w")
    state.take(worker, 1)
    clock.now += 4.9
    state.tick()
    before = job.status
    clock.now += 0.2
    state.tick()
    assert ("IN_PROGRESS", "TIMED_OUT") == (before, job.status)
    assert [job.id] == list(worker.stops)


@pytest.mark.parametrize("running", [False, True])
def test_ttl_deletes_a_job_whatever_its_state(running: bool) -> None:
    clock = Clock()
    state = endpoint(clock)
    job = state.submit(submission(policy={"ttl": 10_000}), sync=False)
    worker = state.roster.seen("w")
    if running:
        state.take(worker, 1)
    clock.now += 10.1
    state.tick()
    assert [job.id] * running == list(worker.stops)
    with pytest.raises(Refused) as refused:
        state.job(job.id)
    assert 404 == refused.value.status


@pytest.mark.parametrize(("sync", "seconds"), [(True, 60), (False, 1800)])
def test_results_are_kept_as_long_as_documented(sync: bool, seconds: int) -> None:
    clock = Clock()
    state = endpoint(clock)
    job = state.submit(submission(), sync=sync)
    state.take(state.roster.seen("w"), 1)
    state.finish(job, {}, 0)
    clock.now += seconds - 1
    state.tick()
    assert job.id in state.jobs
    clock.now += 2
    state.tick()
    assert job.id not in state.jobs


def test_only_failed_and_timed_out_jobs_can_be_retried() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    with pytest.raises(Refused) as refused:
        state.retry(job)
    assert 400 == refused.value.status


def test_a_retried_job_runs_again_under_its_id_without_its_old_output() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    worker = state.roster.seen("w")
    state.take(worker, 1)
    state.finish(job, {"output": 1, "error": "no"}, 1)
    state.retry(job)
    assert {"id": job.id, "status": "IN_QUEUE"} == job.answer()
    assert [job] == state.take(worker, 1)


def test_purge_cancels_what_waits_and_leaves_what_runs() -> None:
    state = endpoint(Clock())
    jobs = [state.submit(submission(), sync=False) for _ in range(3)]
    state.take(state.roster.seen("w"), 1)
    assert 2 == state.purge()
    assert ["IN_PROGRESS", "CANCELLED", "CANCELLED"] == [job.status for job in jobs]


def test_chunks_of_a_try_that_died_are_forgotten() -> None:
    state = endpoint(Clock())
    job = state.submit(submission(), sync=False)
    state.take(state.roster.seen("w"), 1)
    state.chunk(job, ["half"], 4)
    state.retire("w")
    assert ([], 0) == state.read_chunks(job)


def test_unread_chunks_are_bounded() -> None:
    state = endpoint(Clock(), limits=replace(Limits(), unread_bytes=10))
    job = state.submit(submission(), sync=False)
    state.chunk(job, ["x"], 10)
    with pytest.raises(Refused) as refused:
        state.chunk(job, ["x"], 1)
    assert 413 == refused.value.status


def test_the_queue_is_bounded() -> None:
    state = endpoint(Clock(), limits=replace(Limits(), queue_length=1))
    state.submit(submission(), sync=False)
    with pytest.raises(Refused) as refused:
        state.submit(submission(), sync=False)
    assert 429 == refused.value.status


def test_the_oldest_results_go_when_memory_is_short() -> None:
    state = endpoint(Clock(), limits=replace(Limits(), stored_bytes=1000))
    worker = state.roster.seen("w")
    jobs = []
    for _ in range(5):
        jobs.append(state.submit(submission(), sync=False))
        state.take(worker, 1)
        state.finish(jobs[-1], {"output": "x" * 300}, 300)
    assert [job.id for job in jobs[-2:]] == list(state.jobs)


def test_memory_is_accounted_for_to_the_last_byte() -> None:
    clock = Clock()
    state = endpoint(clock)
    worker = state.roster.seen("w")
    for _ in range(3):
        job = state.submit(submission(), sync=True)
        state.take(worker, 1)
        state.progress(job, 1, 10)
        state.chunk(job, ["a"], 7)
        state.finish(job, {"output": 1}, 20)
    clock.now += 61
    state.tick()
    assert (0, {}) == (state._store.bytes, dict(state.jobs))  # noqa: SLF001 - the sum has no other face


def test_a_silent_worker_is_dead_unless_it_holds_a_poll_open() -> None:
    clock = Clock()
    lost: list[str] = []
    state = endpoint(clock, on_lost=lost.append)
    for name in ("silent", "polling"):
        state.take(state.roster.seen(name), 1)
    with state.roster.polling(state.roster.seen("polling")):
        clock.now += 31
        state.tick()
    assert ["silent"] == lost


def test_a_worker_that_starts_may_be_silent_for_seven_minutes() -> None:
    clock = Clock()
    lost: list[str] = []
    state = endpoint(clock, on_lost=lost.append)
    state.roster.seen("w")
    clock.now += 419
    state.tick()
    early = list(lost)
    clock.now += 2
    state.tick()
    assert ([], ["w"]) == (early, lost)


def test_health_counts_jobs_and_workers() -> None:
    state = endpoint(Clock())
    state.roster.seen("starting")
    state.take(state.roster.seen("idle"), 1)
    for _ in range(3):
        state.submit(submission(), sync=False)
    first, _ = state.take(state.roster.seen("busy"), 2)
    state.finish(first, {"error": "no"}, 1)
    assert {
        "jobs": {"completed": 0, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0},
        "workers": {
            "idle": 1,
            "initializing": 1,
            "ready": 1,
            "running": 1,
            "throttled": 0,
            "unhealthy": 0,
        },
    } == state.health()


def test_a_draining_endpoint_gives_nobody_a_job() -> None:
    state = endpoint(Clock())
    state.drain()
    state.submit(submission(), sync=False)
    assert [] == state.take(state.roster.seen("w"), 1)


def test_a_worker_that_asks_to_be_replaced_gets_no_job_any_more() -> None:
    replaced: list[str] = []
    state = endpoint(Clock(), on_refresh=replaced.append)
    worker = state.roster.seen("w")
    state.refresh("w")
    state.submit(submission(), sync=False)
    assert (["w"], []) == (replaced, state.take(worker, 1))


def test_an_end_is_told_once() -> None:
    ended: list[Job] = []
    state = endpoint(Clock(), on_end=ended.append)
    job = state.submit(submission(), sync=False)
    state.cancel(job)
    state.cancel(job)
    assert [job] == ended
