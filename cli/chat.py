"""`chat`: a line in, a reply as it is generated; Ctrl-C ends the reply and not the chat."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli import exits, interrupt, terminal, tokens
from cli.chunks import TextStream
from cli.endpoint_api import Target
from cli.follow import Ended, Watch, run_job
from cli.session import Session
from worker.errors import JobError

_HELP = """/retry      answer the last turn again
/continue   go on with the last reply
/save FILE  write the history to a file, in the form that /chat takes
/help       this
/quit       leave (or Ctrl-D); Ctrl-C while it answers ends the answer"""


def run(options: argparse.Namespace, target: Target) -> int:
    """Chat until /quit or the end of the input; the exit code is that of the last turn."""
    chat = Chat(Session(_payload(options)), target, as_json=options.json, wait=options.wait)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - gives input() its line editing
        terminal.error_console().print(f"{target.url}\n{_HELP}", style="dim", markup=False)
    while (line := _read_line()) is not None and line != "/quit":
        if line:
            chat.enter(line)
    return chat.code


def _payload(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that every turn sends."""
    fields = {
        "mode": options.mode,
        "character": options.character,
        "instruction_template": options.template,
        "your_name": options.name,
        "preset": options.preset,
        "temperature": options.temperature,
        "max_new_tokens": options.max_tokens,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _read_line() -> str | None:
    """One line; None at the end of the input. Ctrl-C clears the line."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            terminal.error_console().print("\n(/quit or Ctrl-D to leave)", style="dim")


class Chat:
    """Runs the turns of a session; code: the exit code that fits the last one."""

    def __init__(self, session: Session, target: Target, *, as_json: bool, wait: float) -> None:
        """wait: seconds that a job may be IN_QUEUE."""
        self.code = exits.OK
        self._session = session
        self._target = target
        self._as_json = as_json
        self._wait = wait

    def enter(self, line: str) -> None:
        """Do what a line says."""
        command, _, rest = line.partition(" ")
        if command == "/help":
            terminal.error_console().print(_HELP, style="dim", markup=False)
        elif command == "/save":
            self._save(rest.strip())
        elif command in ("/retry", "/continue"):
            self._again(command)
        elif command.startswith("/") and command[1:].isalpha():
            terminal.print_error(f"there is no command {command}; see /help")
        else:
            self._turn(self._session.ask(line), TextStream())

    def _again(self, command: str) -> None:
        if self._session.is_empty:
            terminal.print_error(f"{command} needs a reply; say something first")
        elif command == "/retry":
            self._turn(self._session.retry(), TextStream())
        else:
            self._turn(self._session.proceed(), TextStream(self._session.reply))

    def _turn(self, job: Mapping[str, Any], text: TextStream) -> None:
        """Run one job and write what it says; what has come of a reply that is cut is kept."""
        with terminal.Progress(quiet=self._as_json) as progress:

            def on_chunk(chunk: Any) -> None:
                new = text.feed(chunk)
                if new and not self._as_json:
                    progress.clear()
                    terminal.write(new)

            watch = Watch(wait=self._wait, on_wait=progress, on_chunk=on_chunk)
            try:
                ended = interrupt.run(self._run_job(job, watch))
            except interrupt.Interrupted as signal:
                if signal.number == interrupt.TERMINATE:
                    raise
                self._cut(text, "cancelled", exits.INTERRUPTED)
                return
            except JobError as error:
                self._cut(text, str(error), exits.of_error(error))
                return
        self._end(ended, text)

    async def _run_job(self, job: Mapping[str, Any], watch: Watch) -> Ended:
        async with self._target.open() as api:
            return await run_job(api, job, watch, streamed=True)

    def _end(self, ended: Ended, text: TextStream) -> None:
        """Take the whole history of a job that is COMPLETED; of another what was streamed."""
        if ended.status != "COMPLETED":
            self._cut(text, ended.error, exits.of_status(ended.status))
            return
        history = _history(ended.answer.get("output"))
        missing = text.feed({"history": history})
        self._session.take(history)
        self.code = exits.OK
        if self._as_json:
            self._print({"reply": self._session.reply, "history": history, "answer": ended.answer})
        else:
            terminal.write(f"{missing}\n")
            terminal.print_times(ended, self._count())

    def _count(self) -> int | None:
        """Count the reply's tokens, for a person who looks on; a pipe gets no further jobs."""
        if not sys.stdin.isatty():
            return None

        async def work() -> int | None:
            async with self._target.open() as api:
                return await tokens.count(api, self._session.reply, self._wait)

        try:
            return interrupt.run(work())
        except interrupt.Interrupted as signal:
            if signal.number == interrupt.TERMINATE:
                raise
            return None

    def _cut(self, text: TextStream, why: str, code: int) -> None:
        self._session.take(text.history)
        self.code = code
        if self._as_json:
            self._print({"error": why, "history": self._session.history})
        else:
            if text.history is not None:
                terminal.write("\n")
            if code == exits.INTERRUPTED:
                terminal.print_note("cancelled")
            else:
                terminal.print_error(why)

    def _print(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def _save(self, name: str) -> None:
        """Write the history; a file that is there is never replaced."""
        if not name:
            terminal.print_error("name the file: /save FILE")
            return
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                json.dump(self._session.history, file, indent=2, ensure_ascii=False)
        except OSError as error:
            terminal.print_error(f"{name} can't be written: {error.strerror}")
        else:
            terminal.error_console().print(f"saved to {name}", style="dim", markup=False)


def _history(output: Any) -> Any:
    """The history in a job's output, None when it has none."""
    try:
        return (output[0] if isinstance(output, list) else output)["results"][0]["history"]
    except (KeyError, IndexError, TypeError):
        return None
