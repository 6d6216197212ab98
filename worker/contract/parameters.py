"""The generation parameters of the blocking API: one table of names, defaults, types and aliases.

Facts from text-generation-webui@snapshot-2023-11-05 (extensions/api/util.py). Its Python coercions
are kept where a caller means them ("8" and 8.0 for 8) and refused where they surprise ("false" was
true, 12.7 was 12, "hot" gave an empty answer). A parameter that is null counts as not given, and
what the API never knew is ignored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.contract.fields import Number, Reader, Whole, field, flag, given, read, text
from worker.contract.presets import preset_values
from worker.errors import InvalidJob

MAX_TOKEN_ID = 2**31 - 1
_NO_PRESET = ("None", "")


def strings(value: Any) -> tuple[str, ...]:
    """Read stopping strings: a list, or the form of the web page: "a","b"."""
    if isinstance(value, str):
        try:
            value = json.loads(f"[{value}]", strict=False)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('a list of strings, none of them empty, or a string like \'"a","b"\'')
    return tuple(value)


def token_ids(value: Any) -> tuple[int, ...]:
    """Read token ids: "7042,11" or one number."""
    token_id = Whole(0, MAX_TOKEN_ID)
    try:
        parts = value.split(",") if isinstance(value, str) else [value]
        return tuple(token_id(part) for part in parts if not isinstance(part, str) or part.strip())
    except ValueError:
        raise ValueError('token ids like "7042,11"') from None


def _parameter(default: Any, reader: Reader[Any], *aliases: str) -> Any:
    """Declare a parameter: its default, its type and bounds, and its other names."""
    return dataclasses.field(default=default, metadata={"reader": reader, "aliases": aliases})


_any_number = Number(-1e6)
_share = Number(0, 1)
_positive = Number(0, above=True)
_not_negative = Number(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a job may set for one generation; the defaults are the blocking API's.

    The parameter's own name comes before its aliases. given: the names that the caller set,
    directly, by an alias or by a preset.
    """

    max_new_tokens: int = _parameter(200, Whole(0), "max_length")
    auto_max_new_tokens: bool = _parameter(False, flag)
    max_tokens_second: int = _parameter(0, Whole(0))
    do_sample: bool = _parameter(True, flag)
    temperature: float = _parameter(0.5, _not_negative)
    temperature_last: bool = _parameter(False, flag)
    top_p: float = _parameter(1.0, _share)
    min_p: float = _parameter(0.0, _share)
    typical_p: float = _parameter(1.0, Number(0, 1, above=True), "typical")
    epsilon_cutoff: float = _parameter(0.0, _not_negative)
    eta_cutoff: float = _parameter(0.0, _not_negative)
    tfs: float = _parameter(1.0, _share)
    top_a: float = _parameter(0.0, _share)
    repetition_penalty: float = _parameter(1.1, _positive, "rep_pen")
    presence_penalty: float = _parameter(0.0, _any_number, "presence_pen")
    frequency_penalty: float = _parameter(0.0, _any_number, "frequency_pen")
    repetition_penalty_range: int = _parameter(0, Whole(-1))
    encoder_repetition_penalty: float = _parameter(1.0, _positive)
    top_k: int = _parameter(0, Whole(0))
    min_length: int = _parameter(0, Whole(0))
    no_repeat_ngram_size: int = _parameter(0, Whole(0))
    num_beams: int = _parameter(1, Whole(1))
    penalty_alpha: float = _parameter(0.0, _not_negative)
    length_penalty: float = _parameter(1.0, _any_number)
    early_stopping: bool = _parameter(False, flag)
    mirostat_mode: int = _parameter(0, Whole(0, 2))
    mirostat_tau: float = _parameter(5.0, _not_negative)
    mirostat_eta: float = _parameter(0.1, _not_negative)
    grammar_string: str = _parameter("", text)
    guidance_scale: float = _parameter(1.0, _any_number)
    negative_prompt: str = _parameter("", text)
    seed: int = _parameter(-1, Whole(-(2**63), 2**64 - 1))
    add_bos_token: bool = _parameter(True, flag)
    truncation_length: int = _parameter(2048, Whole(1), "max_context_length")
    custom_token_bans: tuple[int, ...] = _parameter((), token_ids)
    ban_eos_token: bool = _parameter(False, flag)
    skip_special_tokens: bool = _parameter(True, flag)
    stopping_strings: tuple[str, ...] = _parameter((), strings)
    given: frozenset[str] = frozenset()


TABLE: Mapping[str, dataclasses.Field[Any]] = {
    parameter.name: parameter
    for parameter in dataclasses.fields(Parameters)
    if "reader" in parameter.metadata
}


def parse_parameters(body: Mapping[str, Any]) -> Parameters:
    """Read the parameters of a job; a preset's values come before the caller's own.

    Raises InvalidJob for a value that can't work and UnknownRoute for a preset that does not exist.
    """
    values: dict[str, Any] = {}
    for name, parameter in TABLE.items():
        key = given(body, name, *parameter.metadata["aliases"])
        if key is not None:
            values[name] = read(key, body[key], parameter.metadata["reader"])
    preset = field(body, text, "", "preset")
    if preset not in _NO_PRESET:
        for name, value in preset_values(preset).items():
            values[name] = read(name, value, TABLE[name].metadata["reader"])
    return Parameters(**values, given=frozenset(values))


def changed(parameters: Parameters, names: Mapping[str, str]) -> list[str]:
    """List those of the names whose value is not the default, in the table's order."""
    return [
        name
        for name, parameter in TABLE.items()
        if name in names and getattr(parameters, name) != parameter.default
    ]


def prompt_of(body: Mapping[str, Any]) -> str:
    """Read the prompt of a /generate or /token-count job; raises InvalidJob if it is no string."""
    if "prompt" not in body:
        raise InvalidJob("prompt is missing; send the text to go on from")
    return read("prompt", body["prompt"], text)
