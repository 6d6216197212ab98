"""The OpenAPI document of the client side: the platform's operations and the jobs. Pure.

https://docs.runpod.io/serverless/endpoints/operation-reference; what is not documented there is as
the emulator does it (docs/emulator.md).
"""

from __future__ import annotations

from typing import Any

from emulator.job_schema import Schema, definitions, job_input, refer_to
from emulator.jobs import CANCELLED, COMPLETED, FAILED, IN_PROGRESS, IN_QUEUE, TIMED_OUT
from emulator.limits import Limits
from emulator.roster import STATES

_ref = refer_to("#/components/schemas")
_ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_ERRORS = {
    400: "the request is wrong; `error` says what to send",
    401: "the key is missing or wrong",
    404: "there is no such job, or its result is not kept any more",
    429: "too many requests",
}
_OPENAI_ROUTES = {
    "/openai/v1/models": ("get", "List the models"),
    "/openai/v1/chat/completions": ("post", "Answer a chat"),
    "/openai/v1/completions": ("post", "Go on from a prompt"),
}


def openapi(endpoint_id: str, limits: Limits) -> Schema:
    """The document for this endpoint."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "A serverless endpoint",
            "version": "2",
            "description": "RunPod's queue, and the jobs that this worker takes. Every path under "
            "/openai/v1/ that the engine has can be called; three are listed.",
        },
        "servers": [
            {"url": f"/v2/{endpoint_id}", "description": "this emulator"},
            {
                "url": "https://api.runpod.ai/v2/{endpoint}",
                "variables": {"endpoint": {"default": endpoint_id}},
            },
        ],
        "security": [{"key": []}, {}],
        "paths": _paths(limits),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_schemas(limits), **definitions(_ref)},
        },
    }


def _paths(limits: Limits) -> Schema:
    """All operations."""
    low, high = (round(seconds * 1000) for seconds in limits.runsync_wait_range)
    wait = _query("wait", "milliseconds to wait for the job", low, high)
    ttl = _query("ttl", "milliseconds from now until the job is deleted")
    job = _content(_ref("Submission"))
    return {
        "/run": _post("run", "Queue a job", "Queued", body=job),
        "/runsync": _post("runsync", "Queue a job and wait", "Status", body=job, extra=[wait]),
        "/status/{id}": _get("status", "How a job stands", "Status", extra=[_ID, ttl]),
        "/status-sync/{id}": _get("statusSync", "Wait for a job", "Status", extra=[_ID, wait]),
        "/stream/{id}": _get("stream", "What came since the last call", "Stream", extra=[_ID]),
        "/cancel/{id}": _post("cancel", "Cancel a job", "Queued", extra=[_ID]),
        "/retry/{id}": _post(
            "retry", "Queue a FAILED or TIMED_OUT job again", "Queued", extra=[_ID]
        ),
        "/purge-queue": _post("purgeQueue", "Cancel what waits in the queue", "Purged"),
        "/health": _get("health", "Count jobs and workers", "Health"),
        **{path: {method: _openai(path, text)} for path, (method, text) in _OPENAI_ROUTES.items()},
    }


def _get(name: str, summary: str, answer: str, *, extra: list[Schema] | None = None) -> Schema:
    return {"get": _operation(name, summary, _content(_ref(answer)), extra)}


def _post(
    name: str,
    summary: str,
    answer: str,
    *,
    body: Schema | None = None,
    extra: list[Schema] | None = None,
) -> Schema:
    operation = _operation(name, summary, _content(_ref(answer)), extra)
    if body is not None:
        operation["requestBody"] = {"required": True, **body}
    return {"post": operation}


def _operation(name: str, summary: str, answer: Schema, extra: list[Schema] | None) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": extra or [],
        "responses": {"200": {"description": "it was done", **answer}, **_errors("Error")},
    }


def _openai(path: str, summary: str) -> Schema:
    """One of OpenAI's operations, whose bodies are described by OpenAI."""
    anything = _content({"type": "object"})
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    operation: Schema = {
        "operationId": path.removeprefix("/openai/v1/").replace("/", "-"),
        "summary": summary,
        "responses": {
            "200": {
                "description": "the engine's answer; events when `stream` is true",
                "content": {**anything["content"], **stream},
            },
            **_errors("OpenAiError"),
        },
    }
    if path != "/openai/v1/models":
        operation["requestBody"] = {"required": True, **anything}
    return operation


def _errors(name: str) -> Schema:
    return {
        str(status): {"description": text, **_content(_ref(name))}
        for status, text in _ERRORS.items()
    }


def _content(schema: Schema) -> Schema:
    return {"content": {"application/json": {"schema": schema}}}


def _query(name: str, description: str, low: int = 0, high: int | None = None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": low}
    if high is not None:
        schema["maximum"] = high
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _schemas(limits: Limits) -> Schema:
    """What is sent and answered, beside the jobs themselves."""
    statuses = [IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT]
    status: Schema = {"enum": statuses}
    milliseconds: Schema = {"type": "integer", "minimum": 0}
    text: Schema = {"type": "string"}
    message = {"message": text, "type": text, "code": {"type": "integer"}}
    counted = ("completed", "failed", "inProgress", "inQueue", "retried")
    return {
        "JobInput": job_input(_ref),
        "Submission": _object(
            {"input": _ref("JobInput")},
            policy={"type": ["object", "null"], "properties": _policy(limits)},
            webhook={"type": ["string", "null"], "format": "uri"},
        ),
        "Queued": _object({"id": text, "status": status}),
        "Status": _object(
            {"id": text, "status": status},
            delayTime={**milliseconds, "description": "milliseconds in the queue"},
            executionTime={**milliseconds, "description": "milliseconds on the worker"},
            workerId={"type": ["string", "null"]},
            output={"description": "the engine's object; of a FAILED job {status, detail}"},
            error={"type": "string", "description": "one sentence that says what to do"},
        ),
        "Stream": _object(
            {"status": status, "stream": {"type": "array", "items": _object({"output": {}})}}
        ),
        "Purged": _object({"removed": {"type": "integer"}, "status": {"const": "completed"}}),
        "Health": _object({"jobs": _counts(counted), "workers": _counts(STATES)}),
        "Error": _object({"error": text}),
        "OpenAiError": _object({"error": _object(message)}),
    }


def _policy(limits: Limits) -> Schema:
    """How long a job may run, and how long it is there at all."""
    return {
        name: {
            "description": f"milliseconds; {round(default * 1000)} unless given",
            "type": ["number", "null"],
            "minimum": round(allowed[0] * 1000),
            "maximum": round(allowed[1] * 1000),
        }
        for name, default, allowed in (
            ("executionTimeout", limits.execution_timeout, limits.execution_timeout_range),
            ("ttl", limits.ttl, limits.ttl_range),
        )
    }


def _object(required: Schema, **optional: Any) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _counts(names: tuple[str, ...]) -> Schema:
    return _object({name: {"type": "integer", "minimum": 0} for name in names})
