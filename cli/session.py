"""A chat: its options, its history, and the job for each turn. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.chunks import last_reply
from gateway.job_input import blocking_input

History = dict[str, Any]


def _empty() -> History:
    return {"internal": [], "visible": []}


@dataclass(slots=True)
class Session:
    """options: fields of the /chat payload (mode, character, ...) that every turn sends."""

    options: Mapping[str, Any]
    history: History = field(default_factory=_empty)

    def ask(self, text: str) -> dict[str, Any]:
        """The job for a new turn."""
        return self._job(user_input=text)

    def retry(self) -> dict[str, Any]:
        """The job that answers the last turn again."""
        return self._job(user_input="", regenerate=True)

    def proceed(self) -> dict[str, Any]:
        """The job that goes on with the last reply."""
        return self._job(user_input="", _continue=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been said."""
        return not self.history["internal"]

    @property
    def reply(self) -> str:
        """The last reply."""
        return last_reply(self.history)

    def take(self, history: Any) -> None:
        """Keep the history that came with an answer, if it is one."""
        if isinstance(history, dict) and isinstance(history.get("internal"), list):
            self.history = history

    def _job(self, **fields: Any) -> dict[str, Any]:
        body = {**self.options, "history": self.history, **fields}
        return {"input": blocking_input("POST", "/chat", body, stream=True)}
