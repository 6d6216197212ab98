"""The blocking API's sampling presets, by name.

Facts from text-generation-webui@snapshot-2023-11-05 (presets/*.yaml, modules/presets.py). Its cap
on a preset's temperature, 1.99, is above all of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from worker.errors import UnknownRoute

_FILE = Path(__file__).parent / "data" / "presets.yaml"


def preset_names() -> list[str]:
    """List the names of all presets, sorted."""
    return list(_load()["presets"])


def preset_values(name: str) -> dict[str, Any]:
    """Give every parameter that this preset sets, its neutral values included.

    Raises UnknownRoute with the known names.
    """
    data = _load()
    if name not in data["presets"]:
        raise UnknownRoute(
            f"preset {name[:50]!r} does not exist; leave it out or send one of "
            f"{', '.join(data['presets'])}"
        )
    return {**data["neutral"], **data["presets"][name]}


@cache
def _load() -> dict[str, dict[str, Any]]:
    """Read the data file, once."""
    data: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return data
