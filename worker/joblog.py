"""The worker's log: one line a job, JSON on the platform, readable in a terminal.

Never prompts, outputs or keys. Everything goes to stderr: in a local run stdout is the result's.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

logger = logging.getLogger("worker")
_encode = json.JSONEncoder(default=str).encode


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, in the platform's shape (requestId, message, level)."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        entry = {
            "requestId": fields.get("id"),
            "level": record.levelname,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return _encode(entry)


def configure(level: str, *, as_json: bool) -> None:
    """Send the worker's log to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    plain_format = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if as_json else plain_format)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def log_engine(line: str) -> None:
    """Log a line that the engine printed, marked as its own."""
    logger.info("engine | %s", line)


def log_job(job_id: str, route: str, status: str, **figures: Any) -> None:
    """Log one finished job with its figures; those that are None are left out."""
    if not logger.isEnabledFor(logging.INFO):
        return
    known = {name: value for name, value in figures.items() if value is not None}
    text = " ".join([f"{name}={value}" for name, value in known.items()])
    # not by logger.info, which looks through the stack for who called, at each job
    record = logging.LogRecord(
        logger.name, logging.INFO, "", 0, f"job {job_id} {route} {status} {text}", None, None
    )
    record.fields = {"id": job_id, "route": route, "status": status, **known}
    logger.handle(record)
