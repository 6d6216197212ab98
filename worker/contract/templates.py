"""The blocking API's instruction templates, by name.

Facts from text-generation-webui@snapshot-2023-11-05 (instruction-templates/*.yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml

from worker.errors import UnknownRoute

_FILE = Path(__file__).parent / "data" / "instruction_templates.yaml"


@dataclass(frozen=True, slots=True)
class Template:
    """How a chat becomes the text that a model was trained on.

    user, bot: what stands for <|user|> and <|bot|>; turn_template: one round, with the places
    <|user|>, <|user-message|>, <|bot|>, <|bot-message|>; context: what comes before the first.
    """

    user: str = ""
    bot: str = ""
    turn_template: str = ""
    context: str = ""


def template_names() -> list[str]:
    """List the names of all templates, sorted."""
    return list(_load())


def load_template(name: str) -> Template:
    """Look up the template of exactly this name; raises UnknownRoute with the nearest names."""
    templates = _load()
    if name not in templates:
        near = get_close_matches(name[:50], templates, n=3, cutoff=0.4) or ["Alpaca", "ChatML"]
        raise UnknownRoute(
            f"instruction template {name[:50]!r} does not exist; near it are {', '.join(near)}"
        )
    return templates[name]


@cache
def _load() -> dict[str, Template]:
    """Read the data file, once."""
    data = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: Template(**values) for name, values in data.items()}
