"""How many tokens an answer has: told by the answer itself, or counted by the engine."""

from __future__ import annotations

from typing import Any

from cli.endpoint_api import EndpointApi
from cli.follow import Watch, run_job
from gateway.job_input import blocking_input
from worker.errors import JobError


def told(output: Any) -> int | None:
    """The number in an OpenAI answer's `usage`, None where there is none."""
    usage = output.get("usage") if isinstance(output, dict) else None
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


async def count(api: EndpointApi, text: str, wait: float) -> int | None:
    """Have the engine count them, which is a short job of its own; None when it can't.

    wait: seconds that this job may be IN_QUEUE.
    """
    job = {"input": blocking_input("POST", "/token-count", {"prompt": text})}
    try:
        ended = await run_job(api, job, Watch(wait=wait), streamed=False)
        return int(ended.answer["output"]["results"][0]["tokens"])
    except (JobError, KeyError, IndexError, TypeError, ValueError):
        return None
