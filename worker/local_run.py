"""One job without the platform: read, run through the same runner, printed as the platform would.

stdout carries the envelope and nothing else; the chunks of a streamed job go to stderr.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.errors import SettingsError
from worker.output import Outcome
from worker.runner import Runner
from worker.stream import Channel

MAX_JOB_FILE_BYTES = 20_000_000


def read_job(text: str | None, path: Path) -> dict[str, Any]:
    """The job in `text`, else in the file; raises SettingsError when there is none to be had."""
    where = "--test_input" if text is not None else path.name
    try:
        if text is None and path.stat().st_size > MAX_JOB_FILE_BYTES:
            raise SettingsError(f"{where} is over {MAX_JOB_FILE_BYTES} bytes")
        job = json.loads(path.read_text("utf-8") if text is None else text)
    except OSError as error:
        raise SettingsError(
            f"{where} can't be read ({error.strerror}); write a job there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{where} is not JSON: {error}") from error
    if not isinstance(job, dict):
        raise SettingsError(f'{where} must hold an object like {{"input": {{...}}}}')
    return {"id": f"local-{uuid.uuid4()}", **job}


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
        await channel.close()
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
