"""Jobs of the blocking API made fit for the classic: checked first, then said as it takes them.

The classic answers a bad request with an empty 200, takes "false" for true and falls over null, so
the contract's own readers read it first. Pure but for the names in the checkout's folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.contract.characters import DEFAULT_CHARACTER, Character, load_character
from worker.contract.chat import Chat, parse_chat
from worker.contract.fields import field, flag, text
from worker.contract.parameters import TABLE, Parameters, parse_parameters, prompt_of
from worker.engines.classic_files import CheckoutFiles

_NONE = ("None", "")
_PARAMETERS = frozenset(
    name for key, entry in TABLE.items() for name in (key, *entry.metadata["aliases"])
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the classic can take. chat: None for /generate."""

    body: Mapping[str, Any]
    parameters: Parameters
    chat: Chat | None = None


class Preparer:
    """Reads requests by the names that the checkout knows."""

    def __init__(self, checkout: Path, characters_dir: Path | None) -> None:
        """characters_dir: where an operator's own characters are, beside the checkout's."""
        self.files = CheckoutFiles(checkout)
        self._characters_dir = characters_dir

    def generate(self, body: Mapping[str, Any]) -> Prepared:
        """Read a /generate job. Raises InvalidJob or UnknownRoute."""
        prompt_of(body)
        parameters = self._parameters(body)
        return Prepared(classic_body(body, parameters), parameters)

    def chat(self, body: Mapping[str, Any]) -> Prepared:
        """Read a /chat job. Raises InvalidJob or UnknownRoute."""
        template = field(body, text, "None", "instruction_template")
        if template not in _NONE:
            self.files.template(template)
        chat = parse_chat(_without(body, "instruction_template"), self._character)
        parameters = self._parameters(body)
        sent = {**classic_body(body, parameters), **_turn(body, chat)}
        name = sent.get("character") or "None"
        if name != "None" and not self.files.has_character(name):
            character = self._character(name)
            sent = {**_spelled_out(character), **_without(sent, "character")}
        if not sent.get("turn_template"):
            sent.pop("turn_template", None)
        return Prepared(sent, parameters, chat)

    def _parameters(self, body: Mapping[str, Any]) -> Parameters:
        """The parameters that the caller set itself; the preset is the checkout's to apply."""
        preset = field(body, text, "None", "preset")
        if preset not in _NONE:
            self.files.check_preset(preset)
        return parse_parameters(_without(body, "preset"))

    def _character(self, name: str | None) -> Character:
        """One of the checkout's characters, else of the operator's or the shipped ones."""
        own = self.files.has_character(DEFAULT_CHARACTER if name in (None, "None") else str(name))
        return load_character(name, self.files.characters_dir if own else self._characters_dir)


def classic_body(body: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """The caller's body without nulls, its parameters as they were read."""
    kept = {
        key: value for key, value in body.items() if value is not None and key not in _PARAMETERS
    }
    return kept | {name: _json(getattr(parameters, name)) for name in sorted(parameters.given)}


def _turn(body: Mapping[str, Any], chat: Chat) -> dict[str, Any]:
    """Which turn is answered, as it was read."""
    return {
        "regenerate": field(body, flag, False, "regenerate"),
        "_continue": chat.continues,
        "history": chat.asked.as_json(),
    }


def _spelled_out(character: Character) -> dict[str, str]:
    """A character that the checkout has no file of, as the fields of a job."""
    fields = {
        "name1": character.name1,
        "name2": character.name2,
        "greeting": character.greeting,
        "context": character.context,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _json(value: Any) -> Any:
    """A parameter's value in JSON: strings as a list, token ids as the classic's text."""
    if not isinstance(value, tuple):
        return value
    if all(isinstance(item, int) for item in value):
        return ",".join(map(str, value))
    return list(value)


def _without(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in keys}
