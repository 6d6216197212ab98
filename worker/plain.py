"""Text from engines and exceptions -> a short piece that a caller may read. Pure."""

from __future__ import annotations

import re

MAX_CHARACTERS = 300
_PATH = re.compile(r"""(?:[A-Za-z]:)?(?:[/\\][^\s/\\"'`:,;()<>]+){2,}[/\\]?""")
_SECRET = re.compile(r"\b(?:hf_|sk-|rpa_)[A-Za-z0-9_-]{8,}|\bBearer\s+\S+")


def plain(text: str) -> str:
    """One bounded line without file paths (their last part stays) and without keys."""
    line = " ".join(text.split())
    line = _SECRET.sub("…", line)
    line = _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], line)
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"
