"""What docs/migrating.md says of this worker, by running it; of the others by what they sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import World, world
from worker.contract.chat import MODES
from worker.contract.parameters import Parameters, parse_parameters

TEXT = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text("utf-8")
SHOWN = [json.loads(block) for block in re.findall(r"```json\n(.+?)\n```", TEXT, re.DOTALL)]
# ashleykleynhans/runpod-worker-oobabooga@402b68d schemas/generate.py
OLD_DEFAULTS: dict[str, Any] = {
    "max_new_tokens": 250,
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.1,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "top_a": 0,
    "repetition_penalty": 1.18,
    "repetition_penalty_range": 0,
    "top_k": 40,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "penalty_alpha": 0,
    "length_penalty": 1,
    "early_stopping": False,
    "mirostat_mode": 0,
    "mirostat_tau": 5,
    "mirostat_eta": 0.1,
    "seed": -1,
    "add_bos_token": True,
    "truncation_length": 2048,
    "ban_eos_token": False,
    "skip_special_tokens": True,
    "stopping_strings": (),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[World]:
    with world() as made:
        yield made


def outcome(worker: World, job_input: Any) -> tuple[int | None, Any]:
    """None and the output, or the status and the sentence."""
    result, _ = worker.run({"id": "j1", "input": job_input})
    body = json.loads(result.body)
    return (result.status, body["error"]) if result.error else (None, body["output"])


def post(endpoint: str, **payload: Any) -> dict[str, Any]:
    return {"api": {"method": "POST", "endpoint": endpoint}, "payload": payload}


def payload_of(endpoint: str) -> dict[str, Any]:
    """The payload of the shown job for this endpoint."""
    jobs = [job["input"] for job in SHOWN if "api" in job["input"]]
    (found,) = [job["payload"] for job in jobs if job["api"]["endpoint"] == endpoint]
    return dict(found)


def test_the_shown_jobs_run_and_that_of_the_other_worker_does_not(worker: World) -> None:
    told = {json.dumps(job["input"]): outcome(worker, job["input"])[0] for job in SHOWN}

    assert [None, None, 400, None] == list(told.values())


@pytest.mark.parametrize("endpoint", ["/generate", "/chat"])
def test_the_old_values_are_the_defaults_that_differ_and_no_more(endpoint: str) -> None:
    shown = {name: value for name, value in payload_of(endpoint).items() if name in OLD_DEFAULTS}
    new = Parameters()

    assert shown == {
        name: value for name, value in OLD_DEFAULTS.items() if getattr(new, name) != value
    }
    assert OLD_DEFAULTS == {
        name: getattr(parse_parameters(payload_of(endpoint)), name) for name in OLD_DEFAULTS
    }


@pytest.mark.parametrize(
    "job_input",
    [
        pytest.param({"api": {"method": "GET", "endpoint": "model"}}, id="GET without payload"),
        pytest.param({"api": {"method": "get", "endpoint": "/model"}}, id="any case"),
        pytest.param(post("/model"), id="POST /model without an action"),
        pytest.param(post("/generate", prompt="x", min_p=0.1, custom_token_bans="5"), id="min_p"),
        pytest.param(post("/generate", prompt="x", stop_at_newline=True), id="unknown ones"),
        pytest.param(
            post("/generate", prompt="x", mirostat_tau=5.5, penalty_alpha=0.6, length_penalty=1.5),
            id="any numbers",
        ),
        *(pytest.param(post("/chat", user_input="x", mode=mode), id=mode) for mode in MODES),
    ],
)
def test_what_the_older_worker_refused_or_sent_otherwise_is_taken(
    worker: World, job_input: Any
) -> None:
    assert None is outcome(worker, job_input)[0]


@pytest.mark.parametrize(
    ("job_input", "status", "says"),
    [
        (post("/model", action="load"), 400, "model_name is missing"),
        (post("/model", action="load", model_name="x", args={"api_key": "x"}), 400, "args can't"),
        ({"payload": {"prompt": "x"}}, 400, "input.api is missing"),
        ({"route": "/v1/completions", "body": {"prompt": "x"}}, 400, "input.api is missing"),
    ],
)
def test_what_was_taken_and_is_not_any_more_says_what_to_send(
    worker: World, job_input: Any, status: int, says: str
) -> None:
    failed, sentence = outcome(worker, job_input)

    assert (status, True) == (failed, says in sentence)
