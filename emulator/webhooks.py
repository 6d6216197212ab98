"""Tell a client's webhook that its job has ended: three tries, ten seconds apart.

https://docs.runpod.io/serverless/endpoints/send-requests ("Webhook notifications"): 200 is
expected, 2 more tries follow. The body is what /status answers.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging

import aiohttp

from emulator.jobs import Job
from emulator.limits import Limits

log = logging.getLogger(__name__)

_AT_ONCE = 32


class Webhooks:
    """Sends in the background; `async with` bounds its life."""

    def __init__(self, limits: Limits) -> None:
        """Remember the tries, pauses and bounds."""
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Webhooks:
        """Open the session."""
        timeout = aiohttp.ClientTimeout(total=self._limits.webhook_timeout)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what is not sent yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def notify(self, job: Job) -> None:
        """Send the job's answer to its webhook, if it has one."""
        if job.webhook is None:
            return
        if len(self._tasks) >= self._limits.webhooks_waiting:
            log.warning("too many webhooks are waiting; none is sent for job %s", job.id)
            return
        body = json.dumps(job.answer()).encode()
        task = asyncio.get_running_loop().create_task(self._send(job.webhook, job.id, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, url: str, job_id: str, body: bytes) -> None:
        for attempt in range(self._limits.webhook_tries):
            if attempt:
                await asyncio.sleep(self._limits.webhook_pause)
            async with self._slots:
                if await self._post(url, body):
                    return
        log.warning("the webhook of job %s did not answer 200", job_id)

    async def _post(self, url: str, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=io.BytesIO(body), headers=headers) as response:
                return response.status == 200
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            return False
