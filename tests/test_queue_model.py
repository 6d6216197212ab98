"""The calculated endpoint against theory, and rule by rule."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.queue_model import Endpoint, poisson, simulate


@pytest.mark.parametrize(("load", "wait"), [(0.5, 1.0), (0.8, 4.0)])
def test_one_worker_with_one_slot_is_the_queue_of_the_books(load: float, wait: float) -> None:
    """M/M/1: the mean wait is load / (1 - load) x the mean work."""
    endpoint = Endpoint(slots=1, extra=0, least=1, most=1)

    outcome = simulate(poisson(load, 1.0, 100_000, seed=1), endpoint)

    assert statistics.fmean(outcome.waits) == pytest.approx(wait, rel=0.05)


def test_many_workers_of_one_slot_wait_no_more_than_one_of_many_slots() -> None:
    jobs = poisson(3.2, 1.0, 20_000, seed=2)
    one = simulate(jobs, Endpoint(slots=4, extra=0, least=1, most=1))
    four = simulate(jobs, Endpoint(slots=1, extra=0, least=4, most=4))

    assert statistics.fmean(one.waits) == pytest.approx(statistics.fmean(four.waits))


def test_a_lone_job_waits_for_the_cold_start_and_its_worker_goes_when_idle() -> None:
    jobs = [(0.0, 3.0), (100.0, 3.0)]

    outcome = simulate(jobs, Endpoint(slots=1, start=20.0, idle=5.0, requests=1))

    assert outcome.waits == [20.0, 20.0]
    assert outcome.worker_seconds == 28.0 + 23.0


def test_a_job_within_the_idle_timeout_finds_the_worker_warm() -> None:
    jobs = [(0.0, 3.0), (27.0, 3.0)]

    assert simulate(jobs, Endpoint(slots=1, requests=1)).waits == [20.0, 0.0]


@pytest.mark.parametrize(("value", "workers"), [(1, 6), (2, 3), (4, 2), (100, 1)])
def test_request_count_is_rounded_up(value: int, workers: int) -> None:
    jobs = [(0.0, 1.0)] * 6
    endpoint = Endpoint(slots=1, extra=0, idle=1000.0, requests=value)

    outcome = simulate(jobs, endpoint)

    # the first worker is started with the first job, the others as the queue grows: all at once
    assert outcome.worker_seconds == workers * outcome.end


def test_queue_delay_adds_a_worker_each_time_the_oldest_job_is_late() -> None:
    jobs = [(0.0, 100.0), (20.0, 1.0), (20.0, 1.0)]
    endpoint = Endpoint(slots=1, extra=0, start=20.0, delay=4.0)

    # the first job's worker comes at 20; a second one is asked for at 4, since that job is late
    assert simulate(jobs, endpoint).waits == [20.0, 4.0, 5.0]


def test_queue_delay_goes_on_adding_while_jobs_are_late() -> None:
    jobs = [(0.0, 100.0)] * 3
    endpoint = Endpoint(slots=1, extra=0, start=20.0, delay=4.0)

    # workers are asked for at 0, 4 and 8
    assert simulate(jobs, endpoint).waits == [20.0, 24.0, 28.0]


def test_queue_delay_does_not_see_the_jobs_that_a_worker_holds() -> None:
    jobs = [(0.0, 1.0), (21.0, 30.0), (21.0, 1.0)]
    endpoint = Endpoint(slots=1, extra=2, start=20.0, delay=30.0)

    assert simulate(jobs, endpoint).waits == [20.0, 0.0, 30.0]


def test_no_more_workers_than_allowed() -> None:
    outcome = simulate([(0.0, 1.0)] * 8, Endpoint(slots=1, extra=0, most=2, requests=1))

    assert max(outcome.waits) == 23.0
