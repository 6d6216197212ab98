"""Characters by name: files as text-generation-webui keeps them, YAML or JSON.

Field names from text-generation-webui@snapshot-2023-11-05 (modules/chat.py), which also reads the
files of older programs. A name is only ever compared with the names of files, never made a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from worker.errors import InvalidJob, UnknownRoute

MAX_CHARACTER_BYTES = 1_000_000
DEFAULT_CHARACTER = "Assistant"

_SHIPPED = Path(__file__).parent / "data" / "characters"
_SUFFIXES = (".yml", ".yaml", ".json")
_BOT_FIELDS = ("name", "bot", "<|bot|>", "char_name")
_USER_FIELDS = ("your_name", "user", "<|user|>")


@dataclass(frozen=True, slots=True)
class Character:
    """Who is in a chat: name1 is the user (None: the character does not say), name2 the bot."""

    name1: str | None
    name2: str
    greeting: str
    context: str


def load_character(name: str | None, folder: Path | None) -> Character:
    """Load a character: from the folder, else a shipped one; None is the default one.

    Raises UnknownRoute with the nearest names when there is none, InvalidJob when its file is
    broken or over MAX_CHARACTER_BYTES.
    """
    if name is None or name == "None":
        name = DEFAULT_CHARACTER
    try:
        return _character(_read(_find(name, folder)))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidJob(
            f"the file of character {name[:50]!r} can't be used: it must be YAML or JSON of "
            f"{MAX_CHARACTER_BYTES} bytes at most with name, greeting and context as text"
        ) from error


def _find(name: str, folder: Path | None) -> Path:
    """Find the character's file; raises UnknownRoute with the nearest names."""
    files = {**_files(_SHIPPED), **(_files(folder) if folder else {})}
    if name not in files:
        near = get_close_matches(name[:50], files, n=3, cutoff=0.4) or sorted(files)[:5]
        raise UnknownRoute(f"character {name[:50]!r} does not exist; near it are {', '.join(near)}")
    return files[name]


def _files(folder: Path) -> dict[str, Path]:
    """List the character files by name; with two of a name, the first of _SUFFIXES is taken."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]
    found.sort(key=lambda path: _SUFFIXES.index(path.suffix), reverse=True)
    return {path.stem: path for path in found}


def _read(path: Path) -> Mapping[str, Any]:
    """Read the file's fields; ValueError when it is too large or no mapping."""
    with path.open("rb") as file:
        content = file.read(MAX_CHARACTER_BYTES + 1)
    if len(content) > MAX_CHARACTER_BYTES:
        raise ValueError("too large")
    text = content.decode("utf-8-sig")
    data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(data, dict):
        raise ValueError("no mapping")  # noqa: TRY004 - one error for all that is wrong with a file
    return data


def _character(data: Mapping[str, Any]) -> Character:
    """Find the fields under all the names they have had; ValueError when one is no text."""
    name2 = next((name for key in _BOT_FIELDS if (name := _text(data, key))), "")
    name1 = next((name for key in _USER_FIELDS if (name := _text(data, key))), None)
    if "context" in data:
        context, greeting = _text(data, "context").strip() + "\n", "greeting"
    elif "char_persona" in data:
        context, greeting = _persona(data, name2), "char_greeting"
    else:
        context, greeting = "", "greeting"
    return Character(name1, name2, _text(data, greeting), context)


def _persona(data: Mapping[str, Any], name2: str) -> str:
    """Make the context of a Pygmalion-style character."""
    labels = {
        "char_persona": f"{_text(data, 'char_name') or name2}'s Persona: ",
        "world_scenario": "Scenario: ",
    }
    said = [label + value for key, label in labels.items() if (value := _text(data, key))]
    said.append(_text(data, "example_dialogue").strip())
    return "\n".join(said).strip() + "\n"


def _text(data: Mapping[str, Any], key: str) -> str:
    """Take a field's text, "" when it is not there; a number is its digits."""
    value = data.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("no text")  # noqa: TRY004 - one error for all that is wrong with a file
    return str(value)
