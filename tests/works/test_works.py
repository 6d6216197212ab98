"""The tables of what works say what happens: every example of docs/jobs.md, on every engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from emulator.job_schema import job_schema
from tests.works.engines import (
    embedded,
    real_classic,
    real_current,
    recorded_classic,
    recorded_current,
)
from tests.works.examples import ROOT, Example, examples
from tests.works.table import committed, endpoint_rows, in_document, rows
from worker.job import BLOCKING_METHODS

EXAMPLES = examples()


def needs(generation: str) -> list[Any]:
    """The marks of a test that needs a real checkout."""
    name = f"WEBUI_{generation}_DIR"
    reason = f"{name} does not name a checkout"
    return [pytest.mark.webui, pytest.mark.skipif(name not in os.environ, reason=reason)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("engine", "start"),
    [
        pytest.param("embedded", embedded, id="embedded"),
        pytest.param("classic", real_classic, id="classic", marks=needs("CLASSIC")),
        pytest.param("current", real_current, id="current", marks=needs("CURRENT")),
    ],
)
async def test_the_table_says_what_a_real_engine_does(
    engine: str, start: Callable[[], Any]
) -> None:
    async with start() as works:
        found = await works.column(EXAMPLES)

    assert committed()[engine] == found


@pytest.mark.parametrize(
    ("engine", "start"), [("classic", recorded_classic), ("current", recorded_current)]
)
async def test_the_table_says_what_a_recorded_engine_does(
    engine: str, start: Callable[[Path], Any], tmp_path: Path
) -> None:
    async with start(tmp_path) as works:
        found = await works.column(EXAMPLES)

    table = committed()[engine]
    assert {name: table[name] for name in found} == found
    assert len(found) > 20


def test_the_table_has_every_example_and_no_other() -> None:
    table = in_document((ROOT / "docs" / "engines.md").read_text("utf-8"))

    assert rows(EXAMPLES, committed()) == table


def test_the_readmes_table_is_the_same_by_endpoint() -> None:
    table = in_document((ROOT / "README.md").read_text("utf-8"))

    assert endpoint_rows(EXAMPLES, committed()) == table


def test_every_endpoint_of_the_blocking_api_has_an_example() -> None:
    assert set(BLOCKING_METHODS) <= {example.path for example in EXAMPLES}


def test_no_two_examples_have_one_name() -> None:
    names = [example.name for example in EXAMPLES]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_is_valid_by_the_schema(example: Example) -> None:
    Draft202012Validator(job_schema()).validate(example.job["input"])
