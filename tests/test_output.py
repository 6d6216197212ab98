"""Whatever the engine answers, the platform gets one valid JSON object of a bounded size."""

import json
from typing import Any

import pytest

from worker.errors import InvalidJob, JobError, OutputError, TooLarge, UnknownRoute
from worker.output import completed, failed


def test_a_completed_job_carries_its_output_as_it_is() -> None:
    outcome = completed({"results": [{"text": "日本 🎉"}]})

    assert '{"output": {"results": [{"text": "日本 🎉"}]}}'.encode() == outcome.body


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "output", [float("nan"), float("inf"), "\ud83d", {"a": {1, 2}}, b"bytes", nested(100_000)]
)
def test_what_is_not_json_is_an_error_and_never_completed(output: Any) -> None:
    with pytest.raises(OutputError, match="can't be sent as JSON"):
        completed(output)


def test_a_result_over_the_limit_is_an_error_with_both_sizes() -> None:
    with pytest.raises(TooLarge, match="has 114 bytes and the platform takes 100"):
        completed("x" * 100, limit=100)


def test_a_failed_job_has_a_plain_sentence_and_its_details_beside_it() -> None:
    outcome = failed(UnknownRoute("there is no model x", detail={"known": ["y"]}))

    expected = {
        "error": "there is no model x",
        "output": {"status": 404, "detail": {"known": ["y"]}},
    }
    assert (expected, "there is no model x", 404) == (
        json.loads(outcome.body),
        outcome.error,
        outcome.status,
    )


@pytest.mark.parametrize("detail", [float("nan"), "\ud83d", "x" * 300])
def test_a_detail_that_can_not_be_sent_is_left_out(detail: Any) -> None:
    outcome = failed(InvalidJob("no", detail=detail), limit=200)

    assert {"error": "no", "output": {"status": 400}} == json.loads(outcome.body)


@pytest.mark.parametrize(
    ("text", "error"),
    [("two\nlines \t here", "two lines here"), ("\ud83d!", "?!"), ("x" * 900, "x" * 499 + "…")],
)
def test_an_error_is_one_short_line(text: str, error: str) -> None:
    assert error == json.loads(failed(JobError(text)).body)["error"]


def test_an_error_is_never_empty() -> None:
    assert "log" in json.loads(failed(JobError("")).body)["error"]
