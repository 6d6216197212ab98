"""A job's end as the platform takes it: one JSON object, checked before anything is sent.

The SDK posts nothing for a result that `json.dumps` refuses and invalid JSON for NaN, and the
platform drops what is over its limit; in each case the caller would wait for ever. So the text is
made here, once, and is what is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from worker.errors import JobError, OutputError, TooLarge

# https://docs.runpod.io/serverless/endpoints/operation-reference: /runsync takes and returns 20 MB
MAX_OUTPUT_BYTES = 20_000_000
MAX_ERROR_CHARACTERS = 500
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    body: UTF-8 JSON of {"output": ...} or of {"error": "one sentence", "output": {"status", ...}};
    error: the sentence, None for a job that is COMPLETED; status: 200 or the JobError's status.
    """

    body: bytes
    error: str | None = None
    status: int = 200


def completed(output: Any, *, limit: int = MAX_OUTPUT_BYTES) -> Outcome:
    """Make the outcome of a job that is COMPLETED.

    Raises OutputError when the output is not JSON (NaN, half of a surrogate pair, other types,
    endless nesting) and TooLarge when it is over `limit` bytes.
    """
    body = _encode({"output": output})
    if len(body) > limit:
        raise TooLarge(
            f"the result has {len(body)} bytes and the platform takes {limit}; "
            "ask for fewer tokens or split the request"
        )
    return Outcome(body)


def failed(error: JobError, *, limit: int = MAX_OUTPUT_BYTES) -> Outcome:
    """Make the outcome of a job that is FAILED; a detail that can't be sent is left out."""
    message = _one_line(str(error))
    output: dict[str, Any] = {"status": error.status}
    if error.detail is not None:
        output["detail"] = error.detail
    try:
        body = _encode({"error": message, "output": output})
    except OutputError:
        body = b""
    if not body or len(body) > limit:
        body = _encode({"error": message, "output": {"status": error.status}})
    return Outcome(body, message, error.status)


def _encode(value: Any) -> bytes:
    """JSON as UTF-8 bytes; OutputError says what can't be sent."""
    try:
        return _json(value).encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            "the engine's result holds half of a character and can't be sent as JSON; try again"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(
            "the engine's result can't be sent as JSON (not a number, or nested without end)"
        ) from error


def _one_line(text: str) -> str:
    """A sentence fit for the platform's `error`: one line, bounded, only whole characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(line) > MAX_ERROR_CHARACTERS:
        line = line[: MAX_ERROR_CHARACTERS - 1] + "…"
    return line or "the job failed without a reason; see the worker's log"
