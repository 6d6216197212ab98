"""Strict readers for the fields of a caller's JSON: each refuses with one clear sentence.

A reader takes a JSON value and returns the checked value, or raises ValueError with what the value
must be; `read` makes the sentence of it.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from worker.errors import InvalidJob

T = TypeVar("T")
D = TypeVar("D")
Reader = Callable[[Any], T]

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


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


def flag(value: Any) -> bool:
    """Read true or false, 1 or 0, or one of these as a string."""
    known = _FLAGS.get(str(value).lower()) if isinstance(value, (bool, int, str)) else None
    if known is None:
        raise ValueError("true or false")
    return known


def whole(low: int, high: int = 2**31 - 1) -> Reader[int]:
    """Read a whole number from low to high: 8, 8.0 or "8"."""
    expected = f"a whole number from {low} to {high}"

    def reader(value: Any) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(expected)
        return value

    return reader


def number(low: float, high: float = 1e6, *, above: bool = False) -> Reader[float]:
    """Read a finite number from low to high: 0.5, 1 or "0.5". above: low itself is refused."""
    expected = f"a number {'above' if above else 'from'} {low:.10g} {'up ' * above}to {high:.10g}"

    def reader(value: Any) -> float:
        try:
            result = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            result = math.nan
        if not low <= result <= high or (above and result == low):
            raise ValueError(expected)
        return result

    return reader
