"""The JSON Schema of a job's input, made of the worker's own tables. Pure.

`python -m emulator.job_schema` prints it; docs/job.schema.json is that. What a schema can't say is
left to the worker: names that are looked up (models, characters, presets, templates), the range of
a number that is sent as text, and that both lists of a history have the same length.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from worker.contract.chat import MODES, TURN_MARKS
from worker.contract.fields import FLAGS, Number, Whole, flag, text
from worker.contract.parameters import MAX_TOKEN_ID, TABLE, strings, token_ids
from worker.contract.presets import preset_names
from worker.contract.templates import template_names
from worker.job import BLOCKING_METHODS, BLOCKING_PREFIX

Schema = dict[str, Any]
# Where a document keeps the parts: "#/$defs" or, in an OpenAPI one, "#/components/schemas".
Ref = Callable[[str], Schema]

_DIGITS = "[0-9]{1,20}"
_WHOLE = rf"^\s*[+-]?{_DIGITS}\s*$"
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_TOKEN_ID = rf"\s*((\+?{_DIGITS}|-0+)\s*)?"
_SPACE = r"[ \t\n\r]*"
_STRING = rf'{_SPACE}"([^"\\]|\\(["\\/bfnrt]|u[0-9a-fA-F]{{4}}))+"{_SPACE}'
_TEXT: Schema = {"type": ["string", "null"]}
_NAMES = ("character", "your_name", "name1", "name2", "context", "greeting")
_TEMPLATE = ("name1_instruct", "name2_instruct", "context_instruct")
_COMMAND = ("chat_instruct_command", "chat-instruct_command")


def job_schema() -> Schema:
    """The whole document."""
    ref = refer_to("#/$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The input of a job",
        "description": "What stands in `input` of a request to /run or /runsync.",
        **job_input(ref),
        "$defs": definitions(ref),
    }


def refer_to(place: str) -> Ref:
    """Make references to the parts in this place of a document."""
    return lambda name: {"$ref": f"{place}/{name}"}


def job_input(ref: Ref) -> Schema:
    """A job's input: one of two shapes."""
    return {
        "type": "object",
        "if": {"required": ["openai_route"], "not": {"required": ["api"]}},
        "then": ref("OpenAiJob"),
        "else": ref("Job"),
    }


def definitions(ref: Ref) -> dict[str, Schema]:
    """The parts of a job's input, by name."""
    return {
        "Job": _job(ref),
        "OpenAiJob": _openai_job(ref),
        **{_name(endpoint): payload for endpoint, payload in _payloads(ref).items()},
        "Parameters": {"type": "object", "properties": _parameters()},
        "History": _history(ref),
        "Pairs": {
            "description": "[user, bot] pairs, the oldest first",
            "type": "array",
            "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
        },
    }


def _job(ref: Ref) -> Schema:
    """{"api": {"method", "endpoint"}, "payload"}."""
    api = {
        "type": "object",
        "properties": {
            "method": {"type": "string", "pattern": f"^({any_case('GET')}|{any_case('POST')})$"},
            "endpoint": _endpoint(),
        },
        "required": ["method", "endpoint"],
    }
    rules: list[Schema] = []
    for endpoint, methods in BLOCKING_METHODS.items():
        then: Schema = {"properties": {"payload": ref(_name(endpoint))}}
        if "GET" not in methods:
            method = {"pattern": f"^{any_case('POST')}$"}
            then["properties"]["api"] = {"properties": {"method": method}}
        if endpoint in _NEEDED:
            then["required"] = ["payload"]
        asked = {"properties": {"endpoint": {"pattern": _path(endpoint)}}, "required": ["endpoint"]}
        rules.append({"if": {"properties": {"api": asked}}, "then": then})
    return {
        "description": "One request to the blocking API, or to any path under /v1/.",
        "type": "object",
        "properties": {"api": api, "payload": _body()},
        "required": ["api"],
        "allOf": rules,
    }


def _openai_job(ref: Ref) -> Schema:
    """{"openai_route", "openai_input"}: a POST where there is a body."""
    rules: list[Schema] = []
    for endpoint, methods in BLOCKING_METHODS.items():
        then: Schema = {"properties": {"openai_input": ref(_name(endpoint))}}
        if "GET" not in methods:
            then["properties"]["openai_input"]["minProperties"] = 1
            then["properties"]["openai_input"]["type"] = "object"
            then["required"] = ["openai_input"]
        rules.append(
            {"if": {"properties": {"openai_route": {"pattern": _path(endpoint)}}}, "then": then}
        )
    return {
        "description": "What the platform makes of a call to /openai/v1/*.",
        "type": "object",
        "properties": {"openai_route": _endpoint(), "openai_input": _body()},
        "allOf": rules,
    }


# What each endpoint can't do without.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "/generate": ("prompt",),
    "/chat": ("user_input",),
    "/token-count": ("prompt",),
}


def _payloads(ref: Ref) -> dict[str, Schema]:
    """What each endpoint of the blocking API takes."""
    prompt = {"prompt": {"type": "string"}}
    payloads: dict[str, Schema] = {
        "/model": _model(),
        "/generate": {"properties": prompt, **ref("Parameters")},
        "/chat": {"properties": _chat(ref), **ref("Parameters")},
        "/token-count": {"properties": prompt},
        "/stop-stream": {},
    }
    for endpoint, payload in payloads.items():
        needed = _NEEDED.get(endpoint)
        payload["type"] = "object" if needed else ["object", "null"]
        if needed:
            payload["required"] = list(needed)
    return payloads


def _model() -> Schema:
    """/model: a load needs the name of a model."""
    load = {
        "model_name": {"type": "string", "minLength": 1},
        "args": {"type": ["object", "null"]},
    }
    return {
        "properties": {"action": {"enum": [None, "", "info", "list", "load", "unload"]}},
        "if": {"properties": {"action": {"const": "load"}}, "required": ["action"]},
        "then": {"properties": load, "required": ["model_name"]},
    }


def _chat(ref: Ref) -> Schema:
    """The fields of /chat beside the parameters."""
    first, second, third = map(re.escape, TURN_MARKS)
    # All three marks, and none before the one that it follows.
    turn = (
        rf"^$|^((?!{second}|{third})[\s\S])*{first}"
        rf"((?!{third})[\s\S])*{second}[\s\S]*{third}"
    )
    return {
        "user_input": {"type": "string"},
        "history": ref("History"),
        "mode": {"enum": [*MODES, None], "default": MODES[0]},
        **dict.fromkeys((*_NAMES, *_TEMPLATE, *_COMMAND), _TEXT),
        "instruction_template": {**_TEXT, "examples": template_names()},
        "turn_template": {**_TEXT, "pattern": turn},
        "regenerate": {**_flag(), "default": False},
        "_continue": {**_flag(), "default": False},
    }


def _history(ref: Ref) -> Schema:
    """As the last answer gave it; `data` and `data_visible` are the older names."""

    def both(*names: str) -> Schema:
        return {"properties": {name: ref("Pairs") for name in names}, "required": list(names)}

    return {
        "type": ["object", "null"],
        "if": {"required": ["data"], "not": {"required": ["internal"]}},
        "then": both("data", "data_visible"),
        "else": both("internal", "visible"),
    }


def _parameters() -> Schema:
    """The parameters of a generation under all their names."""
    properties: Schema = {"preset": {**_TEXT, "examples": preset_names()}}
    for name, parameter in TABLE.items():
        takes = _takes(parameter.metadata["reader"])
        properties[name] = {**takes, "default": _default(parameter)}
        for alias in parameter.metadata["aliases"]:
            properties[alias] = {**takes, "description": f"another name of {name}"}
    return properties


def _default(parameter: dataclasses.Field[Any]) -> Any:
    """The default as the blocking API words it: no token ids are an empty text."""
    if parameter.metadata["reader"] is token_ids:
        return ""
    default: Any = parameter.default
    return list(default) if isinstance(default, tuple) else default


def _takes(reader: Any) -> Schema:
    """What a reader takes; a bound holds for numbers only, a pattern for text only."""
    if isinstance(reader, Whole):
        return _bounded("integer", reader.low, reader.high, _WHOLE)
    if isinstance(reader, Number):
        takes = _bounded("number", reader.low, reader.high, _NUMBER)
        if reader.above:
            takes["exclusiveMinimum"] = takes.pop("minimum")
        return takes
    if reader is flag:
        return _flag()
    if reader is text:
        return dict(_TEXT)
    if reader is strings:
        return {
            "type": ["array", "string", "null"],
            "items": {"type": "string", "minLength": 1},
            "pattern": rf"^({_SPACE}|{_STRING}(,{_STRING})*)$",
        }
    if reader is token_ids:
        return _bounded("integer", 0, MAX_TOKEN_ID, f"^{_TOKEN_ID}(,{_TOKEN_ID})*$")
    raise TypeError(f"no schema says what {reader} takes")


def _bounded(kind: str, low: float, high: float, pattern: str) -> Schema:
    return {"type": [kind, "string", "null"], "minimum": low, "maximum": high, "pattern": pattern}


def _flag() -> Schema:
    words = "|".join(any_case(word) for word in FLAGS)
    types = ["boolean", "integer", "string", "null"]
    return {"type": types, "minimum": 0, "maximum": 1, "pattern": f"^({words})$"}


def _body() -> Schema:
    """A request's body; for a path under /v1/ the engine's own business."""
    return {"type": ["object", "null"], "properties": {"stream": {**_flag(), "default": False}}}


def _endpoint() -> Schema:
    """A plain path: nothing that could change the host or leave /v1/."""
    known = "|".join(_path(endpoint)[1:-1] for endpoint in BLOCKING_METHODS)
    openai = r"(?!.*//.)(?!.*\.\.)/?v1/[A-Za-z0-9._:/-]{1,509}"
    return {
        "type": "string",
        "pattern": f"^({known}|{openai})$",
        "examples": [*BLOCKING_METHODS, "/v1/chat/completions"],
    }


def _path(endpoint: str) -> str:
    """With or without the leading slash and the prefix."""
    return f"^/?({BLOCKING_PREFIX.removeprefix('/')}/)?{endpoint.removeprefix('/')}/?$"


def _name(endpoint: str) -> str:
    """The part that says what an endpoint takes: /token-count -> TokenCount."""
    return endpoint.removeprefix("/").title().replace("-", "")


def any_case(word: str) -> str:
    """A pattern for a word in any case; JSON Schema has no other way to say so."""
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in word)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(job_schema(), indent=2) + "\n")
