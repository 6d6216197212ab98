"""Posts chunks and results to the platform; a result is tried again until it is delivered.

The SDK's sender gives up on a dropped connection and serialises once more what is JSON already.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import NamedTuple, Protocol

import aiohttp

from worker.errors import JobError, OutputError
from worker.long_poll import Backoff, reason
from worker.output import completed, failed
from worker.runpod_sdk import POST_HEADERS
from worker.serving import Limits
from worker.stream import Channel

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
REFUSALS = 3
PASSING_STATUSES = (408, 429)
# The job is gone, or its result too large: more time changes nothing.
FINAL_STATUSES = (404, 410, 413)
GONE_STATUSES = (404, 410)
# aiohttp sends bytes in one piece; above this it warns that the event loop waits meanwhile.
LARGE_BODY = 1_000_000


class Urls(Protocol):
    """Where a job's posts go."""

    def result_url(self, job_id: str, *, stream: bool) -> str:
        """Where the job's result goes."""
        ...

    def chunk_url(self, job_id: str) -> str:
        """Where the job's chunks go."""
        ...


class _Fault(NamedTuple):
    """Why a post failed, and with which status; None without one."""

    reason: str
    status: int | None = None

    @property
    def refused(self) -> bool:
        """The platform does not take it; it may yet, after a fault of its own."""
        return self.status is not None and self.status < 500 and self.status not in PASSING_STATUSES


class _Patience(NamedTuple):
    """Seconds for one post, after which one is tried once more, and after which refusals count."""

    post: float
    deadline: float
    refused: float = 0.0


class Delivery:
    """The worker's outgoing side."""

    def __init__(self, session: aiohttp.ClientSession, urls: Urls, limits: Limits) -> None:
        self._session = session
        self._urls = urls
        self._for_result = _Patience(limits.post, limits.result, limits.refused)
        self._for_chunk = _Patience(limits.chunk, limits.chunk)

    async def result(self, job_id: str, body: bytes, *, stream: bool) -> bool:
        """Post a job's result; False when it had to be given up (logged as an error)."""
        url = self._urls.result_url(job_id, stream=stream)
        fault = await self._deliver(url, job_id, body, self._for_result)
        if fault is not None and fault.refused and fault.status not in GONE_STATUSES:
            logger.error("the platform refuses the result of job %s: %s", job_id, fault.reason)
            told = failed(OutputError(f"the platform refused the result ({fault.reason})"))
            fault = await self._deliver(url, job_id, told.body, self._for_result)
        if fault is not None:
            logger.error("the result of job %s is lost: %s", job_id, fault.reason)
        return fault is None

    async def chunks(self, job_id: str, channel: Channel) -> None:
        """Post what comes through the channel, in order, until it is closed and empty.

        When a chunk can't be delivered the stream is given up and the channel closed; the job goes
        on. Raises nothing but CancelledError.
        """
        try:
            while chunks := await channel.take():
                for chunk in chunks:
                    if not await self._chunk(job_id, chunk):
                        return
        except Exception:  # the boundary: a fault in a stream must not end its job
            logger.exception("the stream of job %s is given up", job_id)
        finally:
            channel.close()

    async def _chunk(self, job_id: str, chunk: object) -> bool:
        """Post one chunk; False when the stream has to be given up."""
        try:
            body = completed(chunk).body
        except JobError as error:
            fault: _Fault | None = _Fault(str(error))
        else:
            url = self._urls.chunk_url(job_id)
            fault = await self._deliver(url, job_id, body, self._for_chunk)
        if fault is not None:
            logger.error("the stream of job %s is given up: %s", job_id, fault.reason)
        return fault is None

    async def _deliver(
        self, url: str, job_id: str, body: bytes, patience: _Patience
    ) -> _Fault | None:
        """Post with growing pauses until it is taken; else the last fault.

        The last try begins after the deadline, so a process that was frozen past it has a chance.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        refusals = 0
        while True:
            late = loop.time() >= begun + patience.deadline
            patient = loop.time() < begun + patience.refused
            fault = await self._post(url, job_id, body, patience.post)
            if fault is None:
                return None
            refusals = refusals + 1 if fault.refused else 0
            final = fault.status in FINAL_STATUSES or not patient
            if late or (refusals >= REFUSALS and final):
                return fault
            await asyncio.sleep(backoff.pause())

    async def _post(self, url: str, job_id: str, body: bytes, seconds: float) -> _Fault | None:
        """Post once."""
        data = body if len(body) < LARGE_BODY else io.BytesIO(body)
        headers = {**POST_HEADERS, "X-Request-ID": job_id}
        try:
            async with self._session.post(
                url, data=data, headers=headers, timeout=aiohttp.ClientTimeout(seconds)
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            return _Fault(reason(error))
        return None if status < 400 else _Fault(f"HTTP {status}", status)
