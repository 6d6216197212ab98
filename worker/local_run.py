"""One job without the platform: run through the same runner, printed as the platform would.

stdout carries the envelope and nothing else; the chunks of a streamed job go to stderr.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from worker.output import Outcome
from worker.runner import Runner
from worker.stream import Channel


async def run_local(runner: Runner, job: Mapping[str, Any], *, queued_at: float) -> int:
    """Run the job and print its envelope; the exit code is 0 when COMPLETED, 1 when not.

    queued_at: monotonic seconds since when the job has been waiting (the cold start).
    """
    started = time.monotonic()
    channel = Channel(runner.merger())
    printer = asyncio.create_task(_print_chunks(channel))
    try:
        outcome = await runner.run(job, channel)
    finally:
        channel.close()
        await printer
    return print_outcome(job, outcome, queued_at=queued_at, started=started)


def print_outcome(
    job: Mapping[str, Any], outcome: Outcome, *, queued_at: float, started: float | None = None
) -> int:
    """Print the envelope; a job that never started has only waited."""
    now = time.monotonic()
    started = now if started is None else started
    envelope = make_envelope(job, outcome, delay=started - queued_at, execution=now - started)
    sys.stdout.write(json.dumps(envelope, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return 0 if outcome.error is None else 1


def make_envelope(
    job: Mapping[str, Any], outcome: Outcome, *, delay: float, execution: float
) -> dict[str, Any]:
    """What the platform's /runsync answers for such a job; delay and execution in seconds."""
    result = json.loads(outcome.body)
    status = "COMPLETED" if outcome.error is None else "FAILED"
    envelope = {
        "delayTime": round(delay * 1000),
        "executionTime": round(execution * 1000),
        "id": job.get("id"),
        **result,
        "status": "TIMED_OUT" if outcome.status == 504 else status,
    }
    return dict(sorted(envelope.items()))


async def _print_chunks(channel: Channel) -> None:
    """Print each chunk as it comes."""
    while chunks := await channel.take():
        for chunk in chunks:
            line = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)
            sys.stderr.write(line.rstrip("\n") + "\n")
        sys.stderr.flush()
