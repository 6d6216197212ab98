"""The names that a classic's checkout knows: presets, instruction templates, characters.

A name is only ever compared with the names of files, never made a path. Its own load functions
raise after "200 OK" was sent, which a caller would see as an empty answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import yaml

from worker.contract.templates import Template
from worker.errors import InvalidJob, UnknownRoute

_SUFFIXES = (".yml", ".yaml", ".json")


class CheckoutFiles:
    """Reads the folders anew each time: an operator may add files."""

    def __init__(self, checkout: Path) -> None:
        """checkout: the folder of text-generation-webui."""
        self.characters_dir = checkout / "characters"
        self._presets = checkout / "presets"
        self._templates = checkout / "instruction-templates"

    def check_preset(self, name: str) -> None:
        """Raise UnknownRoute, with the known names, unless there is such a preset."""
        names = _stems(self._presets, (".yaml",))
        if name not in names:
            raise UnknownRoute(
                f"preset {name[:50]!r} does not exist; leave it out or send one of "
                f"{', '.join(sorted(names))[:300]}"
            )

    def template(self, name: str) -> Template:
        """Read an instruction template; UnknownRoute with the nearest names, or InvalidJob."""
        names = _stems(self._templates, _SUFFIXES)
        if name not in names:
            near = get_close_matches(name[:50], names, n=3, cutoff=0.4) or sorted(names)[:3]
            raise UnknownRoute(
                f"instruction template {name[:50]!r} does not exist; near it are {', '.join(near)}"
            )
        try:
            data = yaml.safe_load(names[name].read_text(encoding="utf-8"))
            fields = {key: str(data.get(key) or "") for key in ("user", "bot", "context")}
            turn = str(data.get("turn_template") or "").replace(r"\n", "\n")
        except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise InvalidJob(
                f"the file of instruction template {name[:50]!r} can't be used; send another one"
            ) from error
        return Template(turn_template=turn, **fields)

    def has_character(self, name: str) -> bool:
        """Whether the checkout has a character of this name."""
        return name in _stems(self.characters_dir, _SUFFIXES)


def _stems(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """The files with these suffixes by name; of two with one name the first suffix counts."""
    order = tuple(suffixes)
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if path.suffix in order and path.is_file()]
    found.sort(key=lambda path: order.index(path.suffix), reverse=True)
    return {path.stem: path for path in found}
