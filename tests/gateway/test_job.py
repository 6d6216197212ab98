"""A job's state and a job's input, without any I/O."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.job import Job, check_numbering
from gateway.job_input import blocking_input, openai_input
from tests.emulator.helpers import Clock
from worker.errors import EngineBroken, JobError, JobTimedOut
from worker.job import Request, parse_job


def make(**fields: Any) -> tuple[Job, Clock]:
    clock = Clock()
    return Job(**{"id": "j", "clock": clock, "wait": 10.0, **fields}), clock


@pytest.mark.parametrize(
    ("waited", "pause"), [(0.0, 0.01), (0.05, 0.01), (2.0, 0.2), (10.0, 1.0), (600.0, 1.0)]
)
def test_the_pause_is_a_tenth_of_the_time_waited(waited: float, pause: float) -> None:
    job, clock = make()
    clock.now += waited
    assert pytest.approx(pause) == job.pause()


def test_something_new_makes_the_pause_short_again() -> None:
    job, clock = make()
    clock.now += 9
    job.heard()
    assert 0.01 == job.pause()


def test_a_job_may_be_in_queue_for_the_wait_only() -> None:
    job, clock = make(wait=10.0)
    clock.now += 9.9
    job.note("IN_QUEUE")
    clock.now += 0.1
    with pytest.raises(JobTimedOut, match="no worker took the job within 10 s"):
        job.note("IN_QUEUE")


def test_a_job_may_run_for_longer_than_the_wait() -> None:
    job, clock = make(wait=10.0)
    clock.now += 1
    job.note("IN_PROGRESS")
    clock.now += 1000
    job.note("IN_PROGRESS")
    assert 1.0 == job.queued


def test_a_job_that_is_queued_again_waits_anew() -> None:
    job, clock = make(wait=10.0)
    job.note("IN_PROGRESS")
    clock.now += 1000
    job.note("IN_QUEUE")
    assert not job.over


def test_the_output_of_a_generator_worker_is_its_only_element() -> None:
    job, _ = make(status="COMPLETED", answer={"output": [{"a": 1}]})
    assert {"a": 1} == job.output()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"status": "FAILED", "error": "no", "output": {"status": 413}}, 413),
        ({"status": "FAILED", "error": "no", "output": {"status": 200}}, 500),
        ({"status": "FAILED", "error": "no", "output": {"status": True}}, 500),
        ({"status": "FAILED", "error": {"odd": 1}}, 500),
        ({"status": "TIMED_OUT"}, 504),
        ({"status": "CANCELLED"}, 410),
    ],
)
def test_what_did_not_complete_has_the_status_that_fits(
    answer: dict[str, Any], status: int
) -> None:
    job, _ = make(status=answer["status"], answer=answer)
    with pytest.raises(JobError) as error:
        job.output()
    assert status == error.value.status


@pytest.mark.parametrize("frame", ["text", {"text": ""}, {"event": "text_stream"}])
def test_what_is_no_numbered_frame_is_refused(frame: Any) -> None:
    with pytest.raises(EngineBroken):
        check_numbering(0, frame)


def test_a_gap_between_frames_is_a_lost_part() -> None:
    check_numbering(1, {"event": "text_stream", "message_num": 1})
    with pytest.raises(EngineBroken, match="lost"):
        check_numbering(1, {"event": "text_stream", "message_num": 2})


def test_a_blocking_request_does_not_stream_whatever_its_body_says() -> None:
    job_input = blocking_input("POST", "/generate", {"prompt": "x", "stream": True})
    assert Request("POST", "/generate", {"prompt": "x"}, True, False) == parse_job(job_input)


def test_a_post_without_a_body_stays_a_post() -> None:
    request = parse_job(openai_input("POST", "/v1/internal/stop-generation", {}))
    assert Request("POST", "/v1/internal/stop-generation", {}, False, False) == request


def test_a_get_has_no_body() -> None:
    assert {"openai_route": "/v1/models"} == openai_input("GET", "/v1/models", {})
