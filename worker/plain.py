"""Text from engines and exceptions -> a short piece that a caller may read. Pure."""

from __future__ import annotations

import re
from typing import Any

MAX_CHARACTERS = 300
MAX_ITEMS = 100
_TRACEBACK = "Traceback (most recent call last)"
_PATH = re.compile(r"""(?:[A-Za-z]:)?(?:[/\\][^\s/\\"'`:,;()<>]+){2,}[/\\]?""")
_SECRET = re.compile(r"\b(?:hf_|sk-|rpa_)[A-Za-z0-9_-]{8,}|\bBearer\s+\S+")


def redacted(value: Any, depth: int = 8) -> Any:
    """JSON with every text in it free of paths and keys, and not endlessly deep or long."""
    if isinstance(value, str):
        return plain(value)
    if depth == 0 or not isinstance(value, (dict, list)):
        return None if isinstance(value, (dict, list)) else value
    if isinstance(value, list):
        return [redacted(item, depth - 1) for item in value[:MAX_ITEMS]]
    items = list(value.items())[:MAX_ITEMS]
    return {plain(str(key)): redacted(item, depth - 1) for key, item in items}


def plain(text: str) -> str:
    """One bounded line without paths (their last part stays) and keys; of a traceback its end."""
    if _TRACEBACK in text:
        text = text.strip().splitlines()[-1].replace(_TRACEBACK, "")
    line = " ".join(text.split())
    line = _SECRET.sub("…", line)
    line = _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], line)
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"
