"""The OpenAPI document: valid, about the routes that there are, and true of what they answer."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from emulator.client_api import ClientApi
from emulator.endpoint import Endpoint
from emulator.limits import Limits
from emulator.openapi import openapi
from emulator.server import Emulator, running_emulator
from emulator.web import Gate
from tests.emulator.helpers import FAST
from tests.fake_worker import fake_worker

DOCUMENT = openapi("local", Limits())
GENERATE = {"api": {"method": "POST", "endpoint": "/generate"}, "payload": {"prompt": "Hi"}}


def validator(name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return Draft202012Validator(schema)


def test_it_is_a_valid_openapi_document() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_has_every_operation_of_the_client_side_and_no_other() -> None:
    endpoint = Endpoint(limits=FAST, clock=lambda: 0.0)
    routes = {
        (route.method, re.sub(r"\{\w+\}", "{id}", route.path))
        for route in ClientApi(endpoint).routes(Gate(worker_key="k"), "")
    }

    described = {
        (method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if not path.startswith("/openai/")
    }
    assert routes == described


async def test_it_and_the_schema_are_served_without_a_key() -> None:
    async with running_emulator(api_key="k", endpoint_id="mine") as emulator:
        document = await ask(emulator.url + "/openapi.json")
        schema = await ask(emulator.url + "/job.schema.json")

    assert ("/v2/mine", "The input of a job") == (document["servers"][0]["url"], schema["title"])


async def ask(url: str, body: Any = None) -> Any:
    async with aiohttp.ClientSession() as http:
        method = "GET" if body is None else "POST"
        async with http.request(method, url, json=body) as response:
            return await response.json()


async def answers(emulator: Emulator) -> dict[str, list[Any]]:
    """Real answers by the schema that describes them."""
    base = emulator.base
    async with fake_worker(emulator, pause=0.01):
        done = await ask(f"{base}/runsync", {"input": GENERATE})
        streamed = {**GENERATE, "payload": {"prompt": "Hi", "stream": True}}
        queued = await ask(f"{base}/run", {"input": streamed})
        stream = await ask(f"{base}/stream/{queued['id']}")
        cancelled = await ask(f"{base}/cancel/{queued['id']}", {})
    waiting = await ask(f"{base}/run", {"input": GENERATE})
    return {
        "Status": [done, await ask(f"{base}/status/{waiting['id']}")],
        "Queued": [queued, cancelled, waiting],
        "Stream": [stream],
        "Health": [await ask(f"{base}/health")],
        "Purged": [await ask(f"{base}/purge-queue", {})],
        "Error": [await ask(f"{base}/status/nowhere"), await ask(f"{base}/run", {})],
        "OpenAiError": [await ask(f"{base}/openai/v1/completions", [])],
    }


async def test_what_is_answered_is_what_it_says() -> None:
    async with running_emulator(limits=FAST) as emulator:
        told = await asyncio.wait_for(answers(emulator), 30)

    for name, values in told.items():
        for value in values:
            validator(name).validate(value)


@pytest.mark.parametrize(
    ("submission", "valid"),
    [
        ({"input": GENERATE}, True),
        ({"input": GENERATE, "policy": {"executionTimeout": 60_000}}, True),
        ({"input": {**GENERATE, "payload": {}}}, False),
        ({"input": GENERATE, "policy": {"executionTimeout": 1}}, False),
        ({"payload": GENERATE}, False),
    ],
)
def test_a_submission_holds_a_job(submission: Any, valid: bool) -> None:
    assert valid == validator("Submission").is_valid(submission)
