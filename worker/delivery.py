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
from worker.stream import Channel

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
REFUSALS = 3
# seconds; a stream that stalls for longer is of no use, the result holds everything
CHUNK_DEADLINE = 5.0
PASSING_STATUSES = (408, 429)
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
    """Why a post failed, and whether the platform refused it (it would again)."""

    reason: str
    refused: bool


class Delivery:
    """The worker's outgoing side.

    deadline: seconds after which a result is tried once more and then given up; timeout: seconds
    that one post may take.
    """

    def __init__(
        self, session: aiohttp.ClientSession, urls: Urls, *, deadline: float, timeout: float
    ) -> None:
        self._session = session
        self._urls = urls
        self._deadline = deadline
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def result(self, job_id: str, body: bytes, *, stream: bool) -> bool:
        """Post a job's result; False when it had to be given up (logged as an error)."""
        url = self._urls.result_url(job_id, stream=stream)
        fault = await self._deliver(url, job_id, body, self._deadline)
        if fault is not None and fault.refused:
            logger.error("the platform refuses the result of job %s: %s", job_id, fault.reason)
            told = failed(OutputError(f"the platform refused the result ({fault.reason})"))
            fault = await self._deliver(url, job_id, told.body, self._deadline)
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
            await channel.close()

    async def _chunk(self, job_id: str, chunk: object) -> bool:
        """Post one chunk; False when the stream has to be given up."""
        try:
            body = completed(chunk).body
        except JobError as error:
            fault: _Fault | None = _Fault(str(error), refused=True)
        else:
            fault = await self._deliver(self._urls.chunk_url(job_id), job_id, body, CHUNK_DEADLINE)
        if fault is not None:
            logger.error("the stream of job %s is given up: %s", job_id, fault.reason)
        return fault is None

    async def _deliver(self, url: str, job_id: str, body: bytes, deadline: float) -> _Fault | None:
        """Post with growing pauses until it is taken; else the last fault.

        The last try begins after the deadline, so a process that was frozen past it has a chance.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        refusals = 0
        while True:
            late = loop.time() >= end
            fault = await self._post(url, job_id, body)
            if fault is None:
                return None
            refusals += fault.refused
            if late or refusals >= REFUSALS:
                return fault
            await asyncio.sleep(backoff.pause())

    async def _post(self, url: str, job_id: str, body: bytes) -> _Fault | None:
        """Post once."""
        data = body if len(body) < LARGE_BODY else io.BytesIO(body)
        headers = {**POST_HEADERS, "X-Request-ID": job_id}
        try:
            async with self._session.post(
                url, data=data, headers=headers, timeout=self._timeout
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            return _Fault(reason(error), refused=False)
        if status < 400:
            return None
        return _Fault(f"HTTP {status}", refused=status < 500 and status not in PASSING_STATUSES)
