"""The history of a chat: what the caller sends, and what it gets back with the reply.

`internal` is what the model sees, `visible` the same as HTML, each a list of [user, bot] pairs.
Facts from text-generation-webui@snapshot-2023-11-05 (modules/chat.py, chatbot_wrapper).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.contract.fields import read
from worker.errors import InvalidJob

# The user's turn before a greeting; it is never shown nor put in a prompt.
BEGIN = "<|BEGIN-VISIBLE-CHAT|>"

Pair = tuple[str, str]
_NAME_PLACES = re.compile(r"<USER>|<user>|\{\{user\}\}")


@dataclass(frozen=True, slots=True)
class History:
    """[user, bot] pairs, oldest first; both sides have the same length."""

    internal: tuple[Pair, ...] = ()
    visible: tuple[Pair, ...] = ()

    def without_last(self) -> History:
        """Drop the last pair."""
        return History(self.internal[:-1], self.visible[:-1])

    def with_pair(self, internal: Pair, visible: Pair) -> History:
        """Add a pair."""
        return History((*self.internal, internal), (*self.visible, visible))

    def as_json(self) -> dict[str, list[list[str]]]:
        """Make new lists in the blocking API's form."""
        return {
            "internal": [list(pair) for pair in self.internal],
            "visible": [list(pair) for pair in self.visible],
        }


def parse_history(value: Any) -> History:
    """Read `history`, also in the older form {"data", "data_visible"}.

    Raises InvalidJob unless it is two lists of the same length with pairs of strings.
    """
    if value is None:
        return History()
    if not isinstance(value, Mapping):
        raise InvalidJob('history must be {"internal": [[user, bot], ...], "visible": [...]}')
    old = "internal" not in value and "data" in value
    keys = ("data", "data_visible") if old else ("internal", "visible")
    internal, visible = (read(f"history.{key}", value.get(key), _pairs) for key in keys)
    if len(internal) != len(visible):
        raise InvalidJob(
            f"history.{keys[0]} has {len(internal)} pairs and history.{keys[1]} {len(visible)}; "
            "send as many of each"
        )
    return History(internal, visible)


def _pairs(value: Any) -> tuple[Pair, ...]:
    """Read a list of pairs of strings."""
    expected = "a list of [user, bot] pairs of strings"
    if not isinstance(value, list):
        raise ValueError(expected)  # noqa: TRY004 - readers tell by ValueError what they want
    for pair in value:
        if not isinstance(pair, list) or [type(turn) for turn in pair] != [str, str]:
            raise ValueError(expected)
    return tuple((user, bot) for user, bot in value)


def visible_text(reply: str, name1: str) -> str:
    """Make a reply HTML, with the user's name in its places."""
    return html.escape(_NAME_PLACES.sub(lambda _: name1, reply))
