"""The Hub's files name every setting of the worker and no other, and jobs that it takes."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from worker.job import parse_job
from worker.settings import Settings

RUNPOD = Path(__file__).parent.parent / ".runpod"
HUB: dict[str, Any] = json.loads((RUNPOD / "hub.json").read_text("utf-8"))
TESTS: dict[str, Any] = json.loads((RUNPOD / "tests.json").read_text("utf-8"))
INPUTS: dict[str, dict[str, Any]] = {
    entry["key"]: entry["input"] for entry in HUB["config"]["env"] if "input" in entry
}
SETTINGS = {setting.metadata["variable"]: setting for setting in fields(Settings)}
# Settings that nobody should set there, each with the reason.
LEFT_OUT = {
    "WEBUI_DIR": "the image sets it to the checkout that it has",
    "WEBUI_PYTHON": "the image sets it to the Python of its checkout",
    "MODEL_IMAGE_DIR": "where the image's build puts models",
    "MODEL_DOWNLOAD_DIR": "with a volume downloads go there",
    "VOLUME": "the platform always mounts it at the same place",
}
GPU_POOLS = frozenset(
    ("AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO")
)
CATEGORIES = ("audio", "embedding", "language", "video", "image")
LONGEST_TEXT = 200


def values() -> list[Any]:
    """Each value that the Hub may give a setting: (where, variable, value as text)."""
    return [
        *((f"{key}'s default", key, text(key, INPUTS[key]["default"])) for key in with_("default")),
        *((f"{key}'s min", key, str(INPUTS[key]["min"])) for key in with_("min")),
        *((f"{key}'s max", key, str(INPUTS[key]["max"])) for key in with_("max")),
        *((f"{key}'s trueValue", key, INPUTS[key]["trueValue"]) for key in with_("trueValue")),
        *((f"{key}'s falseValue", key, INPUTS[key]["falseValue"]) for key in with_("falseValue")),
        *(
            (f"{key}'s options", key, option["value"])
            for key in with_("options")
            for option in INPUTS[key]["options"]
        ),
        *(
            (f"preset {preset['name']!r}", key, text(key, value))
            for preset in HUB["config"]["presets"]
            for key, value in preset["defaults"].items()
        ),
        *(("tests.json", entry["key"], entry["value"]) for entry in TESTS["config"]["env"]),
    ]


def with_(field: str) -> list[str]:
    return [key for key, given in INPUTS.items() if field in given]


def text(key: str, value: Any) -> str:
    """A value as it arrives in the environment."""
    if isinstance(value, bool):
        value = INPUTS[key]["trueValue" if value else "falseValue"]
    return str(value)


def example(variable: str) -> str:
    """An entry that hub.json could have for a setting."""
    default = SETTINGS[variable].default
    given: dict[str, Any] = {
        "name": variable.replace("_", " ").capitalize(),
        "type": hub_type(variable),
        "description": "what docs/configuration.md says, shortened",
        "advanced": True,
    }
    if default not in ("", None):
        given["default"] = default
    if isinstance(default, bool):
        given |= {"trueValue": "on", "falseValue": "off"}
    return json.dumps({"key": variable, "input": given})


def hub_type(variable: str) -> str:
    """The type that the Hub's form needs: number, boolean or string."""
    default = SETTINGS[variable].default
    if isinstance(default, bool):
        return "boolean"
    return "number" if isinstance(default, int | float) else "string"


def words_of(variable: str) -> list[str]:
    """The words that a setting may be, when it may only be one of a few."""
    try:
        SETTINGS[variable].metadata["parse"]("\0")
    except ValueError as error:
        kind, _, words = str(error).partition("one of ")
        return [] if kind else words.split(", ")
    return []


def test_no_setting_is_missing() -> None:
    missing = sorted(SETTINGS.keys() - INPUTS.keys() - LEFT_OUT.keys())

    assert not missing, (
        ".runpod/hub.json lacks settings; add these to config.env, or to LEFT_OUT with a reason:\n"
        + ",\n".join(map(example, missing))
    )


def test_no_variable_is_dead() -> None:
    named = {entry["key"] for entry in HUB["config"]["env"]} | {key for _, key, _ in values()}
    dead = sorted(named - SETTINGS.keys())

    assert not dead, f"the worker reads none of these; remove them from .runpod/: {dead}"


def test_what_is_left_out_is_a_setting_and_really_left_out() -> None:
    assert LEFT_OUT.keys() <= SETTINGS.keys() - INPUTS.keys()


def test_no_variable_is_there_twice() -> None:
    keys = [entry["key"] for entry in HUB["config"]["env"]]

    assert sorted(set(keys)) == sorted(keys)


@pytest.mark.parametrize("variable", sorted(INPUTS.keys() & SETTINGS.keys()))
def test_a_variable_has_the_type_and_the_default_of_its_setting(variable: str) -> None:
    default = SETTINGS[variable].default
    expected = (hub_type(variable), None if default in ("", None, ()) else default)

    assert expected == (INPUTS[variable]["type"], INPUTS[variable].get("default"))


@pytest.mark.parametrize("variable", sorted(filter(words_of, SETTINGS.keys() & INPUTS.keys())))
def test_a_setting_that_is_one_of_a_few_words_offers_them_all(variable: str) -> None:
    offered = [option["value"] for option in INPUTS[variable].get("options", [])]

    assert sorted(words_of(variable)) == sorted(offered)


@pytest.mark.parametrize(("where", "variable", "value"), values())
def test_the_worker_takes_every_value(where: str, variable: str, value: str) -> None:
    assert isinstance(value, str), f"{where} is no text"
    Settings.from_env({variable: value})


def test_every_variable_has_a_name_and_a_short_description() -> None:
    unclear = [
        key
        for key, given in INPUTS.items()
        if not (given["name"] and 0 < len(given["description"]) <= LONGEST_TEXT)
    ]

    assert [] == unclear


def test_the_listing_has_what_the_hub_asks_for() -> None:
    """https://github.com/runpod/docs, hub/publishing-guide.mdx."""
    config = HUB["config"]

    assert "serverless" == HUB["type"]
    assert HUB["category"] in CATEGORIES
    assert HUB["title"]
    assert 0 < len(HUB["description"]) <= LONGEST_TEXT
    assert ("GPU", 1) == (config["runsOn"], config["gpuCount"])
    assert set(config["gpuIds"].split(",")) <= GPU_POOLS
    assert isinstance(config["containerDiskInGb"], int)


@pytest.mark.parametrize("job", TESTS["tests"], ids=lambda job: job["name"])
def test_the_hub_s_tests_are_jobs_that_the_worker_takes(job: dict[str, Any]) -> None:
    assert isinstance(job["timeout"], int)
    assert parse_job(job["input"]).path


def test_the_hub_s_tests_run_where_the_listing_does() -> None:
    assert TESTS["config"]["allowedCudaVersions"] == HUB["config"]["allowedCudaVersions"]
    assert TESTS["config"]["gpuCount"] == HUB["config"]["gpuCount"]
