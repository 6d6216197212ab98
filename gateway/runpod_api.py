"""The client side of one endpoint's queue over HTTP; an oddity of it becomes a JobError here, once.

https://docs.runpod.io/serverless/endpoints/operation-reference
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from worker.client import encode_body
from worker.errors import EngineBroken, EngineDown, JobError, TooLarge, WorkerError
from worker.plain import plain

MAX_RUN_BYTES = 10_000_000
MAX_ANSWER_BYTES = 64_000_000
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0


class Busy(EngineDown):
    """RunPod takes no request right now and has not looked at this one; seconds to wait."""

    retry_after = 5


class Unreachable(EngineDown):
    """Nothing answers where the endpoint should be; the request was not sent."""


class RunpodApi:
    """Speaks to one endpoint; made inside a running loop, closed with `close`."""

    def __init__(self, url: str, api_key: str | None, *, patience: float = 30.0) -> None:
        """url: https://host/v2/<endpoint id>; patience: seconds that a poll is repeated for."""
        self._url = url
        self._patience = patience
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=60, sock_connect=10),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def run(self, job_input: Mapping[str, Any]) -> str:
        """Queue a job; its id. Sent once: a repetition could run the job twice."""
        body = encode_body({"input": job_input})
        if len(body) > MAX_RUN_BYTES:
            raise TooLarge(f"the request has {len(body)} bytes and RunPod takes {MAX_RUN_BYTES}")
        job_id = (await self._ask("POST", "/run", body)).get("id")
        if not isinstance(job_id, str) or not job_id:
            raise EngineBroken("RunPod answered without a job's id; try again")
        return job_id

    async def status(self, job_id: str) -> dict[str, Any]:
        """How the job stands: {"status", "output"?, "error"?, ...}."""
        return await self._poll("GET", f"/status/{job_id}", (Busy, Unreachable, EngineBroken))

    async def stream(self, job_id: str) -> tuple[str, list[Any]]:
        """The job's status and what it streamed since the last call.

        A broken answer is not asked for again: its chunks are gone.
        """
        answer = await self._poll("GET", f"/stream/{job_id}", (Busy, Unreachable))
        items = answer.get("stream")
        chunks = [item["output"] for item in items or [] if _is_chunk(item)]
        return str(answer.get("status")), chunks

    async def cancel(self, job_id: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        await self._poll("POST", f"/cancel/{job_id}", (Busy, Unreachable, EngineBroken))

    async def health(self) -> dict[str, Any]:
        """Counts of jobs and workers; starts none."""
        return await self._ask("GET", "/health")

    async def _poll(
        self, method: str, path: str, again: tuple[type[WorkerError], ...]
    ) -> dict[str, Any]:
        """Ask, and ask again with growing pauses after these errors while patience lasts."""
        give_up, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return await self._ask(method, path)
            except again:
                if time.monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """One exchange, never redirected: the key stays with the host that it is for."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = None if body is None else io.BytesIO(body)
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=headers, allow_redirects=False
            ) as response:
                raw = await _read_bounded(response)
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(
                f"nothing answers at {error.host}:{error.port}; check the network and --url, "
                "or start the emulator"
            ) from error
        except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError) as error:
            raise EngineBroken("the connection to RunPod broke off; try again") from error
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if response.status != 200:
            raise _refused(response.status, answer, of_job=path.count("/") > 1)
        if not isinstance(answer, dict):
            raise EngineBroken("RunPod answered with something that is no JSON object; try again")
        return answer


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; raises TooLarge over MAX_ANSWER_BYTES."""
    parts: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        parts.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise TooLarge(f"RunPod's answer is over {MAX_ANSWER_BYTES} bytes; ask for less")
    return b"".join(parts)


def _is_chunk(item: Any) -> bool:
    return isinstance(item, dict) and "output" in item


def _refused(status: int, answer: Any, *, of_job: bool) -> JobError:
    """One sentence for what RunPod itself refused."""
    if status in (401, 403):
        return JobError("RunPod refuses the key; set RUNPOD_API_KEY to one of yours", status=401)
    if status == 404 and not of_job:
        return JobError("RunPod knows no such endpoint; check its id", status=404)
    if status == 404:
        return JobError(
            "RunPod does not know this job; answers are kept for a while only, so send it again",
            status=502,
        )
    if status in (429, 503):
        return Busy("RunPod takes no more requests right now; try again in a few seconds")
    if status >= 500 or status < 400:
        return EngineBroken(f"RunPod answered with status {status}; try again")
    reason = answer.get("error") if isinstance(answer, dict) else None
    sentence = plain(reason) if isinstance(reason, str) else f"status {status}"
    return JobError(f"RunPod refused the request: {sentence}", status=status)
