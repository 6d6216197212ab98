"""The commands that are one exchange or one job each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cli import bench, chat, exits, interrupt, terminal, tokens
from cli.chunks import TextStream, text_of_output
from cli.endpoint_api import Target
from cli.follow import Ended, Watch, follow, run_job
from cli.job_file import Job, is_streamed, read_job

Command = Callable[[argparse.Namespace, Target], int]


def run(options: argparse.Namespace, target: Target) -> int:
    """Queue a job and print its id."""
    job = read_job(options, sys.stdin)

    async def work() -> str:
        async with target.open() as api:
            return await api.submit(job)

    job_id = interrupt.run(work())
    print_json({"id": job_id}) if options.json else terminal.write(f"{job_id}\n")
    return exits.OK


def runsync(options: argparse.Namespace, target: Target) -> int:
    """Queue a job, wait for it and print its output."""
    job = read_job(options, sys.stdin)
    return _show_job(options, target, job, is_streamed(job))


def stream(options: argparse.Namespace, target: Target) -> int:
    """Print what a job streams, as it comes; the job goes on when this is interrupted."""
    return _show_job(options, target, options.job, streamed=True)


def status(options: argparse.Namespace, target: Target) -> int:
    """Print how a job stands."""

    async def work() -> dict[str, Any]:
        async with target.open() as api:
            return await api.status(options.job)

    answer = interrupt.run(work())
    print_json(answer, indent=None if options.json else 2)
    return exits.of_status(str(answer.get("status")))


def cancel(options: argparse.Namespace, target: Target) -> int:
    """Cancel a job; one that has ended stays as it is."""

    async def work() -> dict[str, Any]:
        async with target.open() as api:
            await api.cancel(options.job)
            return await api.status(options.job)

    answer = interrupt.run(work())
    state = answer.get("status")
    if options.json:
        print_json({"id": options.job, "status": state})
    else:
        terminal.write(f"{state}\n")
    return exits.OK


def health(options: argparse.Namespace, target: Target) -> int:
    """Print the counts of jobs and workers."""

    async def work() -> dict[str, Any]:
        async with target.open() as api:
            return await api.health()

    answer = interrupt.run(work())
    print_json(answer) if options.json else terminal.print_counts(answer)
    return exits.OK


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON to stdout: one line, or a few for a person."""
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _show_job(options: argparse.Namespace, target: Target, job: Job | str, streamed: bool) -> int:
    """Follow a new job, or a queued one by its id, and print what it gives."""
    text = TextStream()
    wrote = False

    def on_chunk(chunk: Any) -> None:
        nonlocal wrote
        if options.json:
            print_json({"chunk": chunk})
        elif new := text.feed(chunk):
            progress.clear()
            wrote = True
            terminal.write(new)

    async def work(watch: Watch) -> Ended:
        async with target.open() as api:
            if isinstance(job, str):
                return await follow(api, job, watch, streamed=streamed)
            return await run_job(api, job, watch, streamed=streamed)

    with terminal.Progress(quiet=options.json) as progress:
        watch = Watch(wait=options.wait, on_wait=progress, on_chunk=on_chunk)
        ended = interrupt.run(work(watch))
    _print_end(ended, as_json=options.json, wrote=wrote)
    if not options.json and isinstance(job, str):
        terminal.print_platforms_times(ended)
    elif not options.json:
        terminal.print_times(ended, tokens.told(ended.answer.get("output")))
    return exits.of_status(ended.status)


def _print_end(ended: Ended, *, as_json: bool, wrote: bool) -> None:
    """Print the output, unless it was streamed, or the error."""
    if as_json:
        print_json(ended.answer)
        return
    if wrote:
        terminal.write("\n")
    if ended.status != "COMPLETED":
        terminal.print_error(ended.error)
    elif not wrote:
        output = ended.answer.get("output")
        text = text_of_output(output)
        terminal.write(text + "\n") if text is not None else print_json(output, indent=2)


COMMANDS: Mapping[str, Command] = {
    "chat": chat.run,
    "run": run,
    "runsync": runsync,
    "status": status,
    "stream": stream,
    "cancel": cancel,
    "health": health,
    "bench": bench.run,
}
# Those whose jobs are cancelled with them.
CANCELLING = ("runsync", "chat", "bench")
