"""Strict readers for the fields of a caller's JSON: each refuses with one clear sentence.

A reader takes a JSON value and returns the checked value, or raises ValueError with what the value
must be; `read` makes the sentence of it.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from typing import Any, TypeVar

from worker.errors import InvalidJob

T = TypeVar("T")
D = TypeVar("D")
Reader = Callable[[Any], T]

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")
FLAGS = {"true": True, "false": False, "1": True, "0": False}


def read(name: str, value: Any, reader: Reader[T]) -> T:
    """Read a value; raises InvalidJob naming the field, what it holds and what it must be."""
    try:
        return reader(value)
    except ValueError as error:
        raise InvalidJob(f"{name} is {reprlib.repr(value)}; it must be {error}") from error


def given(body: Mapping[str, Any], *names: str) -> str | None:
    """Find the first of the names that has a value (null counts as not given)."""
    return next((name for name in names if body.get(name) is not None), None)


def field(body: Mapping[str, Any], reader: Reader[T], default: D, *names: str) -> T | D:
    """Read the first of the names that is given, else take the default."""
    name = given(body, *names)
    return default if name is None else read(name, body[name], reader)


def text(value: Any) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError("a string")  # noqa: TRY004 - readers tell by ValueError what they want
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Read an object."""
    if not isinstance(value, dict):
        raise ValueError("an object")  # noqa: TRY004 - as above
    return value


def flag(value: Any) -> bool:
    """Read true or false, 1 or 0, or one of these as a string."""
    if isinstance(value, str) and value.lower() in FLAGS:
        return FLAGS[value.lower()]
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise ValueError("true or false")
    return bool(value)


@dataclass(frozen=True, slots=True)
class Whole:
    """Read a whole number from low to high: 8, 8.0 or "8"."""

    low: int
    high: int = 2**31 - 1

    def __call__(self, value: Any) -> int:
        """Read it; ValueError for anything else."""
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not self.low <= value <= self.high:
            raise ValueError(f"a whole number from {self.low} to {self.high}")
        return int(value)


@dataclass(frozen=True, slots=True)
class Number:
    """Read a finite number from low to high: 0.5, 1 or "0.5". above: low itself is refused."""

    low: float
    high: float = 1e6
    above: bool = field_of(default=False, kw_only=True)

    def __call__(self, value: Any) -> float:
        """Read it; ValueError for anything else."""
        try:
            result = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            result = math.nan
        if not self.low <= result <= self.high or (self.above and result == self.low):
            start = f"above {self.low:.10g} up" if self.above else f"from {self.low:.10g}"
            raise ValueError(f"a number {start} to {self.high:.10g}")
        return result
