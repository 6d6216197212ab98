"""The JSON Schema of a job's input takes what the worker takes, and refuses what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from jsonschema import Draft202012Validator

from emulator.job_schema import job_schema
from tests.fuzz import INPUTS, PROFILE, World, world
from worker.contract.parameters import TABLE
from worker.errors import JobError
from worker.job import parse_job

ROOT = Path(__file__).parents[2]
SCHEMA = Draft202012Validator(job_schema())
# What a schema can't say: names are looked up, and some values do not go together.
ONLY_THE_WORKER = re.compile(
    r"there is no such model|(character|preset|instruction template) .* does not exist"
    r"|history\.\w+ has \d+ pairs|args can't set|args\.|the file of character"
    r"|regenerate and _continue are both true|the prompt has|max_new_tokens \(\d+\) leaves no room"
)
NUMBER_AS_TEXT = re.compile(r"\w+ is '[^']*'; it must be (a whole number|a number|token ids)")


@pytest.fixture(scope="module")
def worker() -> Iterator[World]:
    with world() as made:
        yield made


def refusal(worker: World, job_input: Any) -> str | None:
    """Why the worker refuses a job, None when it does not; an engine's own refusal is none."""
    try:
        request = parse_job(job_input)
    except JobError as error:
        return str(error)
    if not request.blocking:
        return None
    outcome, _ = worker.run({"id": "j1", "input": job_input})
    return outcome.error if outcome.status in (400, 404) else None


def blocking(endpoint: str, method: str = "POST", **payload: Any) -> dict[str, Any]:
    return {"api": {"method": method, "endpoint": endpoint}, "payload": payload}


@given(job_input=INPUTS)
@example(job_input=blocking("/generate", prompt="x", top_k=-1))
@example(job_input=blocking("/generate", prompt="x", typical_p=0))
@example(job_input=blocking("/generate", prompt="x", do_sample="False", ban_eos_token=2))
@example(job_input=blocking("/generate", prompt="x", stopping_strings=[""]))
@example(job_input=blocking("/generate", prompt="x", custom_token_bans="1,,2"))
@example(job_input=blocking("/chat", user_input="x", turn_template="<|bot|><|user-message|>"))
@example(job_input=blocking("/chat", user_input="x", history={"data": [], "data_visible": []}))
@example(job_input=blocking("/chat", user_input=None))
@example(job_input=blocking("/model", action="load"))
@example(job_input=blocking("/model", "GET", action="frobnicate"))
@example(job_input={"openai_route": "/generate", "openai_input": {"prompt": "x"}})
@example(job_input={"openai_route": "/stop-stream", "openai_input": {}})
@PROFILE
def test_the_schema_and_the_worker_agree(worker: World, job_input: Any) -> None:
    assume(is_json(job_input) and not has_two_names(job_input))
    refused = refusal(worker, job_input)
    if refused is None:
        assert [] == [error.message for error in SCHEMA.iter_errors(job_input)]
    elif not ONLY_THE_WORKER.match(refused) and not NUMBER_AS_TEXT.match(refused):
        assert not SCHEMA.is_valid(job_input), refused


def is_json(value: Any) -> bool:
    """Whether it is JSON, which NaN is not, and no text ends in a line break.

    There a pattern's `$` means something else in Python than in JSON Schema.
    """
    text = json.dumps(value)
    return not re.search(r"NaN|Infinity", text) and '\\n"' not in text


def has_two_names(job_input: Any) -> bool:
    """Whether a parameter is given under two names; the worker then looks at one of them."""
    bodies = (
        [job_input.get(key) for key in ("payload", "openai_input")]
        if isinstance(job_input, dict)
        else []
    )
    return any(
        name in body and any(alias in body for alias in parameter.metadata["aliases"])
        for body in bodies
        if isinstance(body, dict)
        for name, parameter in TABLE.items()
    )


def recorded() -> list[Any]:
    """The recorded requests to the blocking API, as jobs."""
    found = []
    for file in sorted((ROOT / "tests" / "contract").glob("legacy*/*.json")):
        request = json.loads(file.read_text("utf-8")).get("request")
        if request and isinstance(request.get("body"), (dict, type(None))):
            api = {"method": request["method"], "endpoint": request["path"]}
            job_input = {"api": api, "payload": request.get("body")}
            found.append(pytest.param(job_input, id=f"{file.parent.name}-{file.stem}"))
    assert len(found) > 80
    return found


@pytest.mark.parametrize("job_input", recorded())
def test_they_agree_on_what_was_recorded(worker: World, job_input: Any) -> None:
    refused = refusal(worker, job_input)
    if refused is None or not ONLY_THE_WORKER.match(refused):
        assert (refused is None) == SCHEMA.is_valid(job_input), refused


def test_the_committed_schema_is_what_the_tables_say() -> None:
    committed = json.loads((ROOT / "docs" / "job.schema.json").read_text("utf-8"))

    assert job_schema() == committed


def test_the_job_of_the_local_test_is_valid() -> None:
    job = json.loads((ROOT / "test_input.json").read_text("utf-8"))

    SCHEMA.validate(job["input"])


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(job_schema())
