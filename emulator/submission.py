"""The body of /run and /runsync, checked. Pure: bytes in, a Submission or a Refused out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from emulator.errors import Refused
from emulator.jobs import Policy
from emulator.limits import Limits


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request.

    fields: the whole body, with `input`; all of it reaches the worker in its job.
    """

    fields: dict[str, Any]
    policy: Policy
    webhook: str | None = None


def parse_submission(raw: bytes, limits: Limits) -> Submission:
    """Check a client's body; raises Refused (400) with a sentence that says what to send."""
    fields = parse_object(raw)
    if fields.get("input") is None:
        raise Refused(400, 'send a JSON object with the key "input"')
    return Submission(fields, _policy(fields.get("policy"), limits), _webhook(fields))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object as strictly as the platform: NaN and Infinity are not JSON.

    Raises Refused (400).
    """
    try:
        value = json.loads(raw, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is not valid JSON") from error
    if not isinstance(value, dict):
        raise Refused(400, "the body must be a JSON object")
    return value


def milliseconds(text: str | None, name: str, default: float) -> float:
    """Parse a query parameter in milliseconds; seconds out. Raises Refused (400)."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refused(400, f"{name} must be a whole number of milliseconds")
    return int(text) / 1000


def default_policy(limits: Limits) -> Policy:
    """Make the policy of a request that sends none."""
    return Policy(limits.execution_timeout, limits.ttl)


def _policy(value: Any, limits: Limits) -> Policy:
    """Check `policy`; lowPriority has no meaning where the number of workers is fixed."""
    if value is None:
        return default_policy(limits)
    if not isinstance(value, dict):
        raise Refused(400, "policy must be a JSON object")
    return Policy(
        _seconds(
            value, "executionTimeout", limits.execution_timeout, limits.execution_timeout_range
        ),
        _seconds(value, "ttl", limits.ttl, limits.ttl_range),
    )


def _seconds(
    policy: dict[str, Any], name: str, default: float, allowed: tuple[float, float]
) -> float:
    """One time of the policy: milliseconds in, seconds out."""
    value = policy.get(name)
    if value is None:
        return default
    low, high = allowed
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value / 1000 <= high:
        raise Refused(
            400, f"policy.{name} must be from {low * 1000:.0f} to {high * 1000:.0f} milliseconds"
        )
    return float(value / 1000)


def _webhook(fields: dict[str, Any]) -> str | None:
    """Check `webhook`: an http or https URL, or nothing."""
    url = fields.get("webhook")
    if url is None or url == "":
        return None
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme in ("http", "https") and parts.hostname:
            return url
    raise Refused(400, "webhook must be an http or https URL")


def _not_json(_: str) -> NoReturn:
    """Refuse NaN, Infinity and -Infinity."""
    raise ValueError
