"""Text for a person: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.follow import Ended, Waiting

if TYPE_CHECKING:
    from rich.status import Status

# What a model says must not move the cursor, rename the window or reach the clipboard.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SAY_EVERY = 15.0
_QUIET = 0.5


def printable(text: str) -> str:
    """The text without control characters, line ends and tabs aside."""
    return _CONTROL.sub("", text)


def write(text: str) -> None:
    """Write a model's text to stdout at once."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def error_console() -> Console:
    """Where everything goes that is no result."""
    return Console(stderr=True, highlight=False)


def print_error(sentence: str) -> None:
    """Say what went wrong."""
    line = Text.assemble(("error: ", "bold red"), printable(sentence))
    error_console().print(line, soft_wrap=True)


def print_note(text: str) -> None:
    """Say what happened, in one dim line."""
    error_console().print(f"[{text}]", style="dim", markup=False, soft_wrap=True)


def describe_wait(waiting: Waiting) -> str:
    """Say what a job waits for, in a few words."""
    text = f"{waiting.status} {waiting.seconds:.0f} s"
    workers = waiting.health.get("workers")
    if waiting.status != "IN_QUEUE" or not isinstance(workers, dict):
        return text
    if workers.get("initializing"):
        return f"{text}: a cold start, {workers['initializing']} worker(s) initializing"
    if workers.get("throttled"):
        return f"{text}: {workers['throttled']} worker(s) throttled, no machine is free"
    if workers.get("running"):
        return f"{text}: {workers['running']} worker(s) busy with other jobs"
    if workers.get("idle") or workers.get("ready"):
        return f"{text}: a worker is about to take it"
    return f"{text}: no worker yet, one has to be started"


class Progress:
    """Shows what a job waits for: one line that changes in a terminal, few lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        """quiet: show nothing."""
        self._console = error_console()
        self._quiet = quiet
        self._status: Status | None = None
        self._said = -_SAY_EVERY
        self._said_status = ""

    def __enter__(self) -> Progress:
        """Show nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the line away."""
        self.clear()

    def __call__(self, waiting: Waiting) -> None:
        """Show it, unless it has hardly begun."""
        if self._quiet or waiting.seconds < _QUIET:
            return
        text = describe_wait(waiting)
        if not self._console.is_terminal:
            self._say(waiting, text)
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def clear(self) -> None:
        """Take the line away, so that text can be written."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _say(self, waiting: Waiting, text: str) -> None:
        late = waiting.seconds - self._said >= _SAY_EVERY
        if late or waiting.status != self._said_status:
            self._said, self._said_status = waiting.seconds, waiting.status
            self._console.print(text, markup=False)


def print_times(ended: Ended, tokens: int | None = None) -> None:
    """Say how long a job took, in one dim line; tokens: of its answer, if that is known."""
    parts = [ended.status, f"queued {ended.queued:.2f} s"]
    if ended.first is not None:
        parts.append(f"first text {ended.first:.2f} s")
    parts.append(f"total {ended.total:.2f} s")
    rate = ended.tokens_per_second(tokens)
    if rate is not None:
        parts.append(f"{tokens} tokens, {rate:.1f} tokens/s")
    print_note(", ".join(parts))


def print_platforms_times(ended: Ended) -> None:
    """Say the platform's times of a job that was looked at later than it was queued."""
    parts = [ended.status, f"queued {ended.queued:.2f} s"]
    execution = ended.answer.get("executionTime")
    if isinstance(execution, (int, float)):
        parts.append(f"execution {execution / 1000:.2f} s")
    print_note(", ".join(parts))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table to stdout; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_counts(health: Any) -> None:
    """Print what /health answers."""
    for group in ("workers", "jobs"):
        counts = health.get(group)
        if isinstance(counts, dict):
            rows = [[printable(str(name)), str(count)] for name, count in counts.items()]
            print_table(group, ["", "count"], rows)
