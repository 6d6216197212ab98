"""Most events of a stream differ in a text only: of those only the text is parsed. Pure.

That is exact: the text is a JSON string at a known place, and all that is around it is the same as
in an event that was parsed whole.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PROBE = "probe"
# in a row that taught nothing: a stream whose events differ otherwise is not worth more
_LESSONS = 4
_decode = json.JSONDecoder().raw_decode


class UsualEvent:
    """What is around the text of an event, as learned from the last one that was parsed whole."""

    def __init__(self, *, after: int = 4) -> None:
        """Start without knowing anything; a stream of `after` events is not worth a lesson."""
        self._too_short_yet = after
        self._before = ""  # to the text's opening quote
        self._after = ""  # from behind its closing quote
        self._lessons = _LESSONS

    def text_of(self, data: str) -> str | None:
        """The text of an event like the one that was learned from, None for another one."""
        before, after = self._before, self._after
        if not before or not data.startswith(before) or not data.endswith(after):
            return None
        try:
            text, end = _decode(data, len(before) - 1)
        except ValueError:
            return None
        if end != len(data) - len(after):
            return None
        self._lessons = _LESSONS
        found: str = text
        return found

    def learn(self, data: str, event: Any, place: dict[str, Any], key: str) -> None:
        """Learn from `event`, parsed from `data`; its text is place[key], within it."""
        self._before = ""
        if self._too_short_yet:
            self._too_short_yet -= 1
            return
        match = re.search(rf'"{key}"\s*:\s*"', data) if self._lessons else None
        if match is None:
            return
        self._lessons -= 1
        before, after = data[: match.end()], data[_decode(data, match.end() - 1)[1] :]
        other = json.loads(f'{before}{_PROBE}"{after}')
        text, place[key] = place[key], _PROBE
        if other == event:
            self._before, self._after = before, after
        place[key] = text
