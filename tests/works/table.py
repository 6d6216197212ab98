"""The table of what works on which engine, in docs/engines.md and, by endpoint, in README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tests.works.examples import ROOT, Example

ENGINES = ("embedded", "current", "classic")
_ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_PLACES = re.compile(r"(<!-- what works -->\n).*?(<!-- end -->\n)", re.DOTALL)

Columns = Mapping[str, Mapping[str, str]]


def rows(examples: Sequence[Example], columns: Columns) -> str:
    """A row for each example. columns: by engine, what came of each example by its name."""
    lines = [
        f"| `{example.path}` | {example.name} | "
        + " | ".join(columns[engine][example.name] for engine in ENGINES)
        + " |"
        for example in examples
    ]
    return _table("endpoint", "example", lines)


def endpoint_rows(examples: Sequence[Example], columns: Columns) -> str:
    """A row for each endpoint, with what came of all its examples together."""
    by_path: dict[str, list[str]] = {}
    for example in examples:
        by_path.setdefault(example.path, []).append(example.name)
    lines = [
        f"| `{path}` | " + " | ".join(_together(columns[e], names) for e in ENGINES) + " |"
        for path, names in by_path.items()
    ]
    return _table("endpoint", None, lines)


def _together(column: Mapping[str, str], names: Sequence[str]) -> str:
    said = {column[name] == "yes" for name in names}
    return {frozenset({True}): "yes", frozenset({False}): "no"}.get(frozenset(said), "partly")


def _table(first: str, second: str | None, lines: Sequence[str]) -> str:
    head = [first, *([second] if second else []), *ENGINES]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) + "\n"


def committed() -> dict[str, dict[str, str]]:
    """The columns that docs/engines.md has."""
    found: dict[str, dict[str, str]] = {engine: {} for engine in ENGINES}
    for _, name, *cells in _ROW.findall((ROOT / "docs" / "engines.md").read_text("utf-8")):
        for engine, said in zip(ENGINES, cells, strict=True):
            found[engine][name] = said
    return found


def in_document(text: str) -> str:
    """What a document has in the table's place."""
    found = _PLACES.search(text)
    return text[found.end(1) : found.start(2)] if found else ""


def put_into(text: str, table: str) -> str:
    """A document with the table in its place."""
    return _PLACES.sub(lambda found: found[1] + table + found[2], text)
