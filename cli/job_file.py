"""The job of a command: from a file, from stdin, or made from options. SettingsError when wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, TextIO

from gateway.job_input import blocking_input, openai_input
from worker.errors import SettingsError
from worker.job import parse_job
from worker.local_job import MAX_JOB_FILE_BYTES

Job = dict[str, Any]


def read_job(options: argparse.Namespace, stdin: TextIO) -> Job:
    """Read or make the job; its input is checked as the worker does. Raises JobError, too."""
    if options.file is not None:
        job = _parse(_read(options.file, stdin), options.file)
    else:
        job = {"input": _from_options(options)}
    request = parse_job(job["input"])
    if options.stream and not request.stream and request.body:
        _body(job["input"])["stream"] = True
    return job


def is_streamed(job: Job) -> bool:
    """Whether the job's answer comes in parts."""
    return parse_job(job["input"]).stream


def _read(name: str, stdin: TextIO) -> str:
    """The text of a file; "-" is stdin."""
    if name == "-":
        text = stdin.read(MAX_JOB_FILE_BYTES + 1)
    else:
        try:
            with Path(name).open(encoding="utf-8") as file:
                text = file.read(MAX_JOB_FILE_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsError(f"{name} can't be read: {reason}") from error
    if len(text) > MAX_JOB_FILE_BYTES:
        raise SettingsError(f"{name} is over {MAX_JOB_FILE_BYTES} bytes")
    return text


def _parse(text: str, name: str) -> Job:
    """A job; a bare input, {"api": ...} or {"openai_route": ...}, is one, too."""
    try:
        job = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name} is not JSON: {error}") from error
    if isinstance(job, dict) and ("api" in job or "openai_route" in job):
        job = {"input": job}
    if not isinstance(job, dict) or "input" not in job:
        raise SettingsError(f'{name} must hold an object like {{"input": {{...}}}}')
    return job


def _from_options(options: argparse.Namespace) -> Any:
    """An input from --api, --prompt, --payload."""
    body = _payload(options.payload)
    if options.prompt is not None:
        body["user_input" if options.api.strip("/") == "chat" else "prompt"] = options.prompt
    if options.max_tokens is not None:
        name = "max_tokens" if options.api.startswith("/v1/") else "max_new_tokens"
        body[name] = options.max_tokens
    if options.api.startswith("/v1/"):
        return openai_input("POST" if body else "GET", options.api, body)
    return blocking_input("POST", options.api, body)


def _payload(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--payload is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise SettingsError("--payload must be a JSON object")
    return body


def _body(job_input: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = job_input["openai_input" if "api" not in job_input else "payload"]
    return body
