"""A job's input becomes a request, or one sentence that tells what to send instead."""

from typing import Any

import pytest

from worker.errors import InvalidJob, JobError, UnknownRoute
from worker.job import Request, parse_job


def blocking(endpoint: Any, method: Any = "POST", **payload: Any) -> dict[str, Any]:
    return {"api": {"method": method, "endpoint": endpoint}, "payload": payload}


@pytest.mark.parametrize(
    "endpoint", ["/generate", "generate", "/api/v1/generate", "api/v1/generate", "/generate/"]
)
def test_the_slash_and_the_prefix_may_be_left_out(endpoint: str) -> None:
    request = parse_job(blocking(endpoint, prompt="x"))

    assert Request("POST", "/generate", {"prompt": "x"}, blocking=True, stream=False) == request


@pytest.mark.parametrize("method", ["get", "GET", "Get"])
def test_the_method_is_taken_in_any_case(method: str) -> None:
    assert "GET" == parse_job({"api": {"method": method, "endpoint": "model"}}).method


def test_a_payload_may_be_absent_or_null() -> None:
    job = {"api": {"method": "GET", "endpoint": "/model"}, "payload": None}

    assert {} == parse_job(job).body


@pytest.mark.parametrize("endpoint", ["/v1/models", "v1/models", "/v1/models/a:b-1.5_Q4"])
def test_any_path_under_v1_is_forwarded(endpoint: str) -> None:
    request = parse_job(blocking(endpoint, "GET"))

    assert ("/" + endpoint.lstrip("/"), False) == (request.path, request.blocking)


@pytest.mark.parametrize("body", [{"openai_input": {}}, {"openai_input": None}, {}])
def test_an_openai_route_without_a_body_is_a_get(body: dict[str, Any]) -> None:
    request = parse_job({"openai_route": "/v1/models", **body})

    assert ("GET", "/v1/models") == (request.method, request.path)


def test_an_openai_route_with_a_body_is_a_post() -> None:
    job = {"openai_route": "/v1/completions", "openai_input": {"prompt": "x", "stream": True}}

    expected = Request("POST", "/v1/completions", job["openai_input"], blocking=False, stream=True)  # type: ignore[arg-type]  # the literal's type is a union
    assert expected == parse_job(job)


def test_only_generate_and_chat_are_streamed() -> None:
    paths = ("/generate", "/chat", "/token-count", "/stop-stream", "/model")

    streamed = [path for path in paths if parse_job(blocking(path, stream=True)).stream]

    assert ["/generate", "/chat"] == streamed


@pytest.mark.parametrize(
    ("job_input", "error", "says"),
    [
        (None, InvalidJob, "must be an object"),
        ([], InvalidJob, "must be an object"),
        ("text", InvalidJob, "must be an object"),
        ({}, InvalidJob, "input.api is missing"),
        ({"api": "POST /generate"}, InvalidJob, "input.api must be an object"),
        (blocking("/generate", "PUT"), InvalidJob, 'must be "GET" or "POST"'),
        (blocking("/generate", None), InvalidJob, 'must be "GET" or "POST"'),
        (blocking("/generate", "GET"), InvalidJob, "/generate takes POST, not GET"),
        (blocking("/nowhere"), UnknownRoute, "/generate, /chat, /token-count, /stop-stream"),
        (blocking("/api/v1"), UnknownRoute, "no endpoint"),
        (blocking("/v1"), UnknownRoute, "no endpoint"),
        (blocking(None), InvalidJob, "missing or not a string"),
        (blocking(7), InvalidJob, "missing or not a string"),
        (blocking(""), InvalidJob, "missing or not a string"),
        (blocking("/"), InvalidJob, "missing or not a string"),
        ({**blocking("/generate"), "payload": [1]}, InvalidJob, "payload must be an object"),
        (
            blocking("/generate", stream="yes"),
            InvalidJob,
            "stream is 'yes'; it must be true or false",
        ),
    ],
)
def test_a_wrong_input_is_refused_with_its_reason(
    job_input: Any, error: type[JobError], says: str
) -> None:
    with pytest.raises(error, match=says.replace(".", r"\.")):
        parse_job(job_input)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:22/v1/models",
        "//evil.example/v1/models",
        "/v1//evil.example",
        "@evil.example/v1/models",
        "/v1/@evil.example:80",
        "/v1/../internal",
        "/v1/./models",
        "/v1/..",
        "/v1/%2e%2e/internal",
        "/v1/models%2f",
        "/v1/models?x=1",
        "/v1/models#x",
        "/v1/mod els",
        "/v1/models\r\nX-Evil: 1",
        "/v1/models\x00",
        "\\\\evil\\v1\\models",
        "/v1/" + "a" * 1000,
    ],
)
def test_nothing_that_could_leave_the_engine_is_an_endpoint(endpoint: str) -> None:
    with pytest.raises(InvalidJob, match="plain path"):
        parse_job(blocking(endpoint))
