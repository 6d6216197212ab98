"""`bench`: the same request many times, some at once; queue delay, first text, tokens a second."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cli import exits, interrupt, terminal, tokens
from cli.chunks import text_of_output
from cli.endpoint_api import EndpointApi, Target
from cli.follow import Ended, Waiting, Watch, run_job
from cli.percentiles import summary
from gateway.job_input import blocking_input
from worker.errors import JobError

_SHOWN = {
    "queue_seconds": "queue delay (s)",
    "first_seconds": "first text (s)",
    "total_seconds": "whole answer (s)",
    "tokens_per_second": "tokens/s of one request",
}


@dataclass(slots=True)
class Request:
    """One measured request; tokens: of its answer, None when it could not be counted."""

    ended: Ended
    tokens: int | None = None


def run(options: argparse.Namespace, target: Target) -> int:
    """Measure and print; 0 when every request is COMPLETED."""
    with terminal.Progress(quiet=options.json) as progress:
        report = interrupt.run(_measure(options, target, progress))
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(report)
    return exits.OK if report["completed"] == options.requests else exits.FAILED


async def _measure(
    options: argparse.Namespace, target: Target, progress: terminal.Progress
) -> dict[str, Any]:
    """Run all requests, then count the tokens of their answers, which is not measured."""
    requests: list[Request] = []
    failures: Counter[str] = Counter()
    left = iter(range(options.requests))
    body = {
        "prompt": options.prompt,
        "max_new_tokens": options.max_tokens,
        "ban_eos_token": True,
        "seed": 1,
    }
    job = {"input": blocking_input("POST", "/generate", body, stream=True)}

    async def sender(api: EndpointApi) -> None:
        for _ in left:
            try:
                ended = await run_job(api, job, watch, streamed=True)
            except JobError as error:
                failures[str(error)] += 1
                continue
            if ended.status == "COMPLETED":
                requests.append(Request(ended))
            else:
                failures[ended.error] += 1

    def on_wait(waiting: Waiting) -> None:
        done = len(requests) + failures.total()
        status = f"{done} of {options.requests} done, {waiting.status}"
        progress(Waiting(status, waiting.seconds, waiting.health))

    watch = Watch(wait=options.wait, on_wait=on_wait)
    async with target.open() as api:
        started = time.monotonic()
        await asyncio.gather(*(sender(api) for _ in range(options.concurrency)))
        seconds = time.monotonic() - started
        await _count_tokens(api, requests, watch, options.concurrency)
    return _report(options, requests, failures, seconds)


async def _count_tokens(
    api: EndpointApi, requests: list[Request], watch: Watch, concurrency: int
) -> None:
    """Count each answer's tokens; one that can't be counted is left without."""
    left = iter(requests)

    async def counter() -> None:
        for request in left:
            text = text_of_output(request.ended.answer.get("output")) or ""
            request.tokens = await tokens.count(api, text, watch.wait)

    await asyncio.gather(*(counter() for _ in range(concurrency)))


def _report(
    options: argparse.Namespace, requests: list[Request], failures: Counter[str], seconds: float
) -> dict[str, Any]:
    """Everything that was measured, as JSON."""
    rates = [request.ended.tokens_per_second(request.tokens) for request in requests]
    total = sum(request.tokens or 0 for request in requests)
    firsts = [request.ended.first for request in requests if request.ended.first is not None]
    return {
        "requests": options.requests,
        "concurrency": options.concurrency,
        "completed": len(requests),
        "failed": failures.total(),
        "errors": dict(failures),
        "seconds": seconds,
        "tokens": total,
        "all_tokens_per_second": total / seconds if seconds else 0.0,
        "queue_seconds": summary([request.ended.queued for request in requests]),
        "first_seconds": summary(firsts),
        "total_seconds": summary([request.ended.total for request in requests]),
        "tokens_per_second": summary([rate for rate in rates if rate is not None]),
    }


def _print(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    measured = {name: report[key] for key, name in _SHOWN.items() if report[key]}
    if measured:
        columns = ["", *next(iter(measured.values()))]
        rows = [
            [name, *(f"{value:.2f}" for value in values.values())]
            for name, values in measured.items()
        ]
        title = f"{report['completed']} requests, {report['concurrency']} at once"
        terminal.print_table(title, columns, rows)
        terminal.write(
            f"{report['tokens']} tokens in {report['seconds']:.1f} s: "
            f"{report['all_tokens_per_second']:.1f} tokens/s in all\n"
        )
    for error, count in report["errors"].items():
        terminal.print_error(f"{count} x {error}")
