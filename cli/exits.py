"""The exit codes, and which one belongs to what went wrong."""

from __future__ import annotations

from worker.errors import JobError, JobTimedOut

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
TIMED_OUT = 4
CANCELLED = 5
INTERRUPTED = 130
TERMINATED = 143

_OF_STATUS = {"COMPLETED": OK, "FAILED": FAILED, "CANCELLED": CANCELLED, "TIMED_OUT": TIMED_OUT}


def of_status(status: str) -> int:
    """The code for a job's last status; one that still waits or runs is no failure."""
    return _OF_STATUS.get(status, OK)


def of_error(error: JobError) -> int:
    """The code for an endpoint that could not be asked, or took too long."""
    return TIMED_OUT if isinstance(error, JobTimedOut) else UNREACHABLE
