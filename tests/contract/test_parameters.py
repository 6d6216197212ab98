from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.contract.parameters import TABLE, Parameters, changed, parse_parameters, prompt_of
from worker.contract.presets import preset_names, preset_values
from worker.errors import InvalidJob, UnknownRoute

PARAM_MAP = json.loads((Path(__file__).parent / "param_map.json").read_text(encoding="utf-8"))
NOT_OF_THE_TABLE = {"prompt", "stream", "preset", "custom_stopping_strings"}


def test_the_table_has_every_parameter_of_the_blocking_api() -> None:
    names = [entry["legacy"].split(" ")[0] for entry in PARAM_MAP["parameters"]]
    own = {name for name in names if name != "CHAT"} - NOT_OF_THE_TABLE
    aliases = {alias for entry in TABLE.values() for alias in entry.metadata["aliases"]}
    assert own == set(TABLE) | aliases


def test_an_empty_job_gets_the_defaults() -> None:
    assert Parameters() == parse_parameters({})


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("max_new_tokens", 200),
        ("do_sample", True),
        ("temperature", 0.5),
        ("top_p", 1.0),
        ("repetition_penalty", 1.1),
        ("repetition_penalty_range", 0),
        ("seed", -1),
        ("truncation_length", 2048),
        ("add_bos_token", True),
        ("skip_special_tokens", True),
        ("mirostat_tau", 5.0),
        ("num_beams", 1),
        ("stopping_strings", ()),
    ],
)
def test_defaults_are_the_blocking_apis(name: str, default: Any) -> None:
    assert default == getattr(parse_parameters({}), name)


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("max_length", "max_new_tokens", 7),
        ("typical", "typical_p", 0.5),
        ("rep_pen", "repetition_penalty", 1.3),
        ("presence_pen", "presence_penalty", 0.4),
        ("frequency_pen", "frequency_penalty", 0.2),
        ("max_context_length", "truncation_length", 512),
    ],
)
def test_an_alias_holds_only_where_the_own_name_is_not_given(
    alias: str, name: str, value: float
) -> None:
    own = type(value)(1)
    assert value == getattr(parse_parameters({alias: value}), name)
    assert own == getattr(parse_parameters({alias: value, name: own}), name)


@pytest.mark.parametrize("name", TABLE)
def test_null_is_the_default(name: str) -> None:
    assert Parameters() == parse_parameters({name: None})


@pytest.mark.parametrize("name", ["bogus", "max_tokens", "custom_stopping_strings", "stream"])
def test_what_the_api_never_knew_is_ignored(name: str) -> None:
    assert Parameters() == parse_parameters({name: [object]})


@pytest.mark.parametrize("value", [8, 8.0, "8", " 8 "])
def test_a_whole_number_may_come_in_any_form(value: Any) -> None:
    parsed = parse_parameters({"top_k": value}).top_k
    assert (8, int) == (parsed, type(parsed))


@pytest.mark.parametrize("value", [1, 1.0, "1", "1e0"])
def test_a_number_may_come_in_any_form(value: Any) -> None:
    parsed = parse_parameters({"temperature": value}).temperature
    assert (1.0, float) == (parsed, type(parsed))


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (0, False), ("false", False), ("True", True), ("1", True)]
)
def test_a_flag_is_what_the_caller_means(value: Any, expected: bool) -> None:
    assert expected == parse_parameters({"do_sample": value}).do_sample


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -1),
        ("temperature", True),
        ("temperature", 10**400),
        ("temperature", [1]),
        ("top_p", 1.5),
        ("typical_p", 0),
        ("repetition_penalty", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", 12.7),
        ("max_new_tokens", "1_0"),
        ("max_new_tokens", True),
        ("max_new_tokens", 2**31),
        ("max_length", "x"),
        ("truncation_length", 0),
        ("top_k", -1),
        ("num_beams", 0),
        ("mirostat_mode", 3),
        ("seed", 2**64),
        ("do_sample", "yes"),
        ("do_sample", 2),
        ("grammar_string", 5),
        ("negative_prompt", ["x"]),
        ("custom_token_bans", "7,x"),
        ("custom_token_bans", "-1"),
        ("custom_token_bans", [1]),
        ("stopping_strings", "###"),
        ("stopping_strings", ["a", 5]),
        ("stopping_strings", [""]),
        ("stopping_strings", {"a": 1}),
        ("stopping_strings", "[" * 100_000),
        ("preset", 5),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidJob, match=rf"^{name} is .*; it must be ") as refused:
        parse_parameters({name: value})
    assert len(str(refused.value)) < 300


def test_the_refusal_tells_what_to_send() -> None:
    with pytest.raises(InvalidJob) as refused:
        parse_parameters({"top_p": "high"})
    assert "top_p is 'high'; it must be a number from 0 to 1" == str(refused.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["\n", "b"], ("\n", "b")),
        ('"\\n","b"', ("\n", "b")),
        ("", ()),
        ([], ()),
    ],
)
def test_stopping_strings_are_a_list_or_quoted_strings(
    value: Any, expected: tuple[str, ...]
) -> None:
    assert expected == parse_parameters({"stopping_strings": value}).stopping_strings


@pytest.mark.parametrize(
    ("value", "expected"), [("7042", (7042,)), ("1, 2,", (1, 2)), (7, (7,)), ("", ())]
)
def test_token_bans_are_ids(value: Any, expected: tuple[int, ...]) -> None:
    assert expected == parse_parameters({"custom_token_bans": value}).custom_token_bans


def test_zero_tokens_are_accepted() -> None:
    assert 0 == parse_parameters({"max_new_tokens": 0}).max_new_tokens


def test_given_are_the_own_names_of_what_the_caller_set() -> None:
    parameters = parse_parameters({"rep_pen": 1.1, "top_k": None, "bogus": 1})
    assert frozenset({"repetition_penalty"}) == parameters.given


def test_changed_are_those_that_are_not_the_default() -> None:
    parameters = parse_parameters({"tfs": 0.9, "top_a": 0, "top_k": 5})
    assert ["tfs"] == changed(parameters, {"top_a": "", "tfs": ""})


@pytest.mark.parametrize("name", ["None", "", None])
def test_no_preset_changes_nothing(name: str | None) -> None:
    assert Parameters() == parse_parameters({"preset": name})


def test_a_preset_comes_before_the_callers_values() -> None:
    parameters = parse_parameters({"preset": "simple-1", "temperature": 0.1, "seed": 3})
    values = (parameters.temperature, parameters.repetition_penalty, parameters.seed)
    assert (0.7, 1.15, 3) == values


def test_a_preset_sets_what_it_does_not_name_to_neutral() -> None:
    parameters = parse_parameters({"preset": "Debug-deterministic", "custom_token_bans": "5"})
    values = (parameters.do_sample, parameters.repetition_penalty, parameters.custom_token_bans)
    assert (False, 1.0, ()) == values


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownRoute, match=r"'simple-2' does not exist.*simple-1") as refused:
        parse_parameters({"preset": "simple-2"})
    assert len(str(refused.value)) < 400


def test_there_are_the_15_presets() -> None:
    assert 15 == len(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_holds_only_parameters_that_can_be_set(name: str) -> None:
    own = preset_values(name)
    parameters = parse_parameters({"preset": name})
    bans = own.pop("custom_token_bans")
    assert (own, "") == ({key: getattr(parameters, key) for key in own}, bans)


def test_no_preset_is_over_the_apis_cap_on_temperature() -> None:
    assert 1.68 == max(preset_values(name)["temperature"] for name in preset_names())


def test_a_presets_values_are_the_callers_to_change() -> None:
    preset_values("Yara")["temperature"] = 100
    assert 0.82 == preset_values("Yara")["temperature"]


def test_the_prompt_is_a_string() -> None:
    assert "Once" == prompt_of({"prompt": "Once"})


@pytest.mark.parametrize(("body", "what"), [({}, "missing"), ({"prompt": ["a"]}, "a string")])
def test_any_other_prompt_is_refused(body: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidJob, match=f"^prompt is .*{what}"):
        prompt_of(body)
