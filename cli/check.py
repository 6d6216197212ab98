"""What a check of the doctor found."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
NOTE = "note"
BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """state: "ok", "note" (works, but you may want to know) or "bad" (the worker won't work).

    found: what is there; advice: what to do, "" when nothing.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """It is as it should be."""
    return Check(name, OK, found)


def note(name: str, found: str, advice: str = "") -> Check:
    """It works, but is worth knowing."""
    return Check(name, NOTE, found, advice)


def bad(name: str, found: str, advice: str) -> Check:
    """The worker will not work."""
    return Check(name, BAD, found, advice)
