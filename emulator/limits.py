"""Every number of the emulator: documented ones of the platform, and bounds of its own.

https://docs.runpod.io/serverless/endpoints/operation-reference (sizes, waits, retention) and
https://docs.runpod.io/serverless/endpoints/send-requests (policy, webhooks), as of runpod/docs
commit a900806. `docs/emulator.md` says which numbers the platform does not document.
"""

from __future__ import annotations

from dataclasses import dataclass

WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are seconds, sizes are bytes."""

    # documented
    run_bytes: int = 10_000_000
    runsync_bytes: int = 20_000_000
    result_bytes: int = 20_000_000
    chunk_bytes: int = 1_000_000
    runsync_wait: float = 90.0
    runsync_wait_range: tuple[float, float] = (1.0, 300.0)
    retention: float = 30 * 60.0
    sync_retention: float = 60.0
    execution_timeout: float = 600.0
    execution_timeout_range: tuple[float, float] = (5.0, WEEK)
    ttl: float = 24 * 3600.0
    ttl_range: tuple[float, float] = (10.0, WEEK)
    webhook_tries: int = 3
    webhook_pause: float = 10.0
    start_timeout: float = 7 * 60.0

    # not documented: chosen
    tries: int = 3
    poll: float = 25.0
    stream_wait: float = 1.0
    worker_silence: float = 30.0
    queue_length: int = 100_000
    stored_bytes: int = 1_000_000_000
    unread_bytes: int = 64_000_000
    webhook_timeout: float = 10.0
    webhooks_waiting: int = 10_000
    write_timeout: float = 60.0
    workers: int = 1_000
