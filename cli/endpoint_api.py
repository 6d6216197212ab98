"""The endpoint that the command line speaks to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from gateway.runpod_api import MAX_RUN_BYTES, RunpodApi
from gateway.settings import parse_settings
from worker.errors import EngineBroken, TooLarge

# Someone looks on: a network that is gone is told of soon, and not after half a minute.
_PATIENCE = 10.0


class EndpointApi(RunpodApi):
    """A client of one endpoint. `async with` bounds its life."""

    async def __aenter__(self) -> EndpointApi:
        """Hand out the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.close()

    async def submit(self, job: Mapping[str, Any]) -> str:
        """Queue a job as it is, policy and webhook included; its id.

        Sent once: a repetition could run the job twice. Raises JobError.
        """
        body = json.dumps(job).encode()
        if len(body) > MAX_RUN_BYTES:
            raise TooLarge(f"the job has {len(body)} bytes and RunPod takes {MAX_RUN_BYTES}")
        job_id = (await self._ask("POST", "/run", body)).get("id")
        if not isinstance(job_id, str) or not job_id:
            raise EngineBroken("the endpoint answered without a job's id; try again")
        return job_id


class Target:
    """Where the endpoint is, and the key for it; `open` makes a client inside a running loop."""

    def __init__(self, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
        """Read --endpoint, --url, RUNPOD_ENDPOINT_ID and RUNPOD_API_KEY; SettingsError."""
        arguments = []
        for name in ("endpoint", "url"):
            value = getattr(options, name)
            if value:
                arguments += [f"--{name}", value]
        settings = parse_settings(arguments, environ)
        self.url = settings.url
        self._api_key = settings.api_key

    def open(self) -> EndpointApi:
        """Make a client."""
        return EndpointApi(self.url, self._api_key, patience=_PATIENCE)
