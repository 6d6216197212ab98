"""The command line's options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.settings import seconds

_EPILOG = """exit codes:
  0    done; the job is COMPLETED (or, for run and status, waits or runs)
  1    the job is FAILED; doctor: something has to be mended; bench: a request failed
  2    wrong options, settings or job
  3    the endpoint can't be reached or refuses the request
  4    the job TIMED_OUT, or no worker took it within --wait
  5    the job was CANCELLED
  130  ended by Ctrl-C (143: by SIGTERM); the job that was waited for is cancelled

RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID name an endpoint; without them it is the emulator on
http://127.0.0.1:8000/v2/local (./start.sh --serve)."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; leaves with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="start.sh",
        description="Jobs of a RunPod endpoint or of the local emulator.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _shared()
    _add_chat(commands.add_parser("chat", parents=[shared], help="talk with the model"))
    for name, says in (
        ("run", "queue a job and print its id"),
        ("runsync", "queue a job, wait for it and print its output"),
    ):
        _add_job(commands.add_parser(name, parents=[shared], help=says))
    for name, says in (
        ("status", "how a job stands, and its output"),
        ("stream", "print what a job streams until it ends"),
        ("cancel", "cancel a job"),
    ):
        command = commands.add_parser(name, parents=[shared], help=says)
        command.add_argument("job", metavar="JOB_ID", type=_job_id)
    commands.add_parser("health", parents=[shared], help="count jobs and workers")
    _add_bench(commands.add_parser("bench", parents=[shared], help="measure the endpoint"))
    doctor = commands.add_parser("doctor", help="check this machine or image, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _shared() -> argparse.ArgumentParser:
    """Options of every command that speaks to an endpoint."""
    shared = argparse.ArgumentParser(add_help=False)
    add = shared.add_argument
    add("--endpoint", metavar="ID", help="the endpoint's id (default: RUNPOD_ENDPOINT_ID)")
    add("--url", help="where endpoints are (default: RunPod, or the emulator without an id)")
    add("--json", action="store_true", help="print JSON, one value a line, for programs")
    add("--wait", type=seconds, default=300.0, help="seconds a job may be IN_QUEUE (300)")
    return shared


def _add_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--mode", default="instruct", help="instruct, chat or chat-instruct (instruct)")
    add("--character", metavar="NAME", help="who answers, with --mode chat or chat-instruct")
    add("--template", metavar="NAME", help="an instruction template (default: the model's own)")
    add("--name", metavar="NAME", help="your name in the chat")
    add("--preset", metavar="NAME", help="a preset of generation parameters")
    add("--temperature", type=float, help="0 for the likeliest answer")
    add("--max-tokens", type=int, default=200, help="tokens of an answer at most (200)")


def _add_job(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a job in JSON; - is stdin (default: options)")
    add("--api", default="/generate", metavar="PATH", help="endpoint of the job (/generate)")
    add("--prompt", metavar="TEXT", help="prompt, or user_input for /chat")
    add("--payload", metavar="JSON", help="the job's payload, what --prompt gives goes into it")
    add("--max-tokens", type=int, metavar="N", help="tokens to generate at most")
    add("--stream", action="store_true", help="have the answer in parts")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--requests", type=_count, default=10, metavar="N", help="requests in all (10)")
    add("-c", "--concurrency", type=_count, default=2, metavar="C", help="of them at once (2)")
    add("--prompt", default="Once upon a time", metavar="TEXT", help="what is gone on from")
    add("--max-tokens", type=int, default=64, metavar="N", help="tokens of each answer (64)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 100000")
    return int(text)


def _job_id(text: str) -> str:
    """Check an id: it becomes a part of URLs."""
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii():
        raise argparse.ArgumentTypeError("an id has letters, digits, - and _ only")
    return text
