"""How two public workers do the same, written anew from a description of what they do.

Older: github.com/ashleykleynhans/runpod-worker-oobabooga@402b68d: a synchronous handler, schemas
checked with the SDK's validator, a requests session with retries, always POST, no status check.
worker-vllm: github.com/runpod-workers/worker-vllm@7a92503: an asynchronous generator, a new aiohttp
session for each job (and another to ask for the model's name when the job has none), a stream's
bytes as they come, decoded with replacement characters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

Validate = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

_JOB_SCHEMA: dict[str, Any] = {
    "api": {"type": dict, "required": True},
    "payload": {"type": dict, "required": True},
}
_API_SCHEMA: dict[str, Any] = {
    "method": {"type": str, "required": True},
    "endpoint": {"type": str, "required": True},
}
# Some thirty parameters, each with a type and a default that is put into every request.
_SAMPLING: dict[str, Any] = {
    **dict.fromkeys(("do_sample", "ban_eos_token", "skip_special_tokens"), True),
    **dict.fromkeys(("early_stopping", "add_bos_token", "auto_max_new_tokens"), False),
    **dict.fromkeys(("temperature", "top_p", "typical_p", "repetition_penalty"), 0.7),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "tfs", "top_a", "guidance_scale"), 0.0),
    **dict.fromkeys(("mirostat_tau", "mirostat_eta", "length_penalty", "penalty_alpha"), 1.0),
    **dict.fromkeys(("top_k", "min_length", "num_beams", "mirostat_mode", "seed"), 0),
    **dict.fromkeys(("no_repeat_ngram_size", "truncation_length", "repetition_range"), 0),
    **dict.fromkeys(("preset", "negative_prompt"), "None"),
    "max_tokens": 200,
    "delay": 0.0,
}
_PAYLOAD_SCHEMA: dict[str, Any] = {
    **{
        name: {"type": type(value), "required": False, "default": value}
        for name, value in _SAMPLING.items()
    },
    "messages": {"type": list, "required": True},
}


class OlderWorker:
    """A synchronous handler: one job at a time, whatever it waits for."""

    def __init__(self, port: int, validate: Validate) -> None:
        """validate: the SDK's `rp_validator.validate`."""
        self._base = f"http://127.0.0.1:{port}"
        self._validate = validate
        self._session = requests.Session()
        retries = Retry(total=10, backoff_factor=0.1, status_forcelist=[502, 503, 504])
        self._session.mount("http://", HTTPAdapter(max_retries=retries))

    def handle(self, job: dict[str, Any]) -> Any:
        """Answer a job."""
        checked = self._checked(job["input"], _JOB_SCHEMA)
        api = self._checked(checked["api"], _API_SCHEMA)
        payload = self._checked(checked["payload"], _PAYLOAD_SCHEMA)
        url = f"{self._base}/{api['endpoint'].lstrip('/')}"
        return self._session.post(url, json=payload, timeout=600).json()

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _checked(self, value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        result = self._validate(value, schema)
        if "errors" in result:
            raise ValueError(str(result["errors"]))
        checked: dict[str, Any] = result["validated_input"]
        return checked


async def worker_vllm(port: int, job: dict[str, Any]) -> AsyncIterator[Any]:
    """Answer a job as worker-vllm does: an asynchronous generator."""
    base = f"http://127.0.0.1:{port}"
    route, body = job["input"]["openai_route"], dict(job["input"]["openai_input"])
    if "model" not in body:
        async with aiohttp.ClientSession() as session, session.get(f"{base}/v1/models") as models:
            body["model"] = (await models.json())["data"][0]["id"]
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{base}{route}", json=body) as response,
    ):
        if body.get("stream"):
            async for piece in response.content.iter_any():
                yield piece.decode("utf-8", errors="replace")
        else:
            yield await response.json()
