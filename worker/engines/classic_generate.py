"""One generation on the classic, known to be whole by its log, and ended with its caller.

A stream goes through a websocket. A text in one piece goes through the blocking API, for it is not
the same there: a websocket holds back the last token that max_new_tokens allows (transformers asks
its own limit before the one who streams) and the rest of a text after a byte that belongs to no
character, and shows beams of a search that may lose. A chat in one piece goes through a websocket
all the same: /stop-stream would cost what there is of the reply, and its last token is held back
in either way.
Facts from text-generation-webui@snapshot-2023-11-05: modules/text_generation.py, modules/chat.py,
extensions/api/streaming_api.py.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from worker.client import EngineClient, encode_body
from worker.engines.classic_errors import generation_error, is_fatal
from worker.engines.classic_log import (
    ClassicLog,
    Entry,
    Failure,
    Output,
    failures_of,
    tokens_of,
)
from worker.engines.classic_request import Prepared
from worker.engines.classic_stream import (
    CHAT_PATH,
    MAX_MESSAGE_BYTES,
    TEXT_PATH,
    Frame,
    frames,
)
from worker.errors import EngineBroken, InvalidJob, JobError
from worker.progress import Progress
from worker.serving import first_of
from worker.slots import Stop

ONE_TOKEN = {"prompt": "1", "max_new_tokens": 1, "do_sample": False}
OnFrame = Callable[[Frame], Awaitable[None]]

_LOG_SECONDS = 0.5
_CAUSE_SECONDS = 0.3
_STOP_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Generated:
    """What was generated: a text, or a history (None when there was not one frame of it).

    tokens: how many the engine generated, None when it did not say.
    """

    value: Any
    tokens: int | None


class ClassicGenerator:
    """Generates, one request at a time.

    streaming_port: tells the websockets' port. held_back: tells how many tokens of a stream are
    not shown (see `count_held_back`). abort: kills the engine, blocking. stop_seconds: how long
    the engine may take to end what nobody waits for.
    """

    def __init__(
        self,
        client: EngineClient,
        log: ClassicLog,
        *,
        streaming_port: Callable[[], int],
        held_back: Callable[[], int],
        abort: Callable[[], None],
        stop_seconds: float = 5.0,
    ) -> None:
        self._client = client
        self._streaming_port = streaming_port
        self._log = log
        self.held_back = held_back
        self._abort = abort
        self._stop_seconds = stop_seconds

    async def generate(
        self,
        prepared: Prepared,
        *,
        stop: Stop,
        progress: Progress,
        on_frame: OnFrame | None = None,
    ) -> Generated:
        """Generate; a requested stop ends it with what there is. Raises JobError.

        on_frame: gets each frame as it comes. Cancelling ends the generation in the engine.
        """
        mark = self._log.mark()
        parts = _Parts(is_chat=prepared.chat is not None)
        try:
            if on_frame is None and _is_plain(prepared):
                await self._stoppable(self._plain(prepared.body, parts), stop)
            else:
                body = self._stream_body(prepared)
                await self._stoppable(self._streamed(body, parts, stop, progress, on_frame), stop)
        except EngineBroken as error:
            raise await self._cause(mark, error, parts.value) from error
        except asyncio.CancelledError:
            await self._until_free(mark)
            raise
        if stop.requested:
            return Generated(parts.value, tokens_of(await self._until_free(mark)))
        tokens = await self._check(mark, parts.value)
        progress.tokens(tokens)
        return Generated(parts.value, tokens)

    async def _streamed(
        self,
        body: Mapping[str, Any],
        parts: _Parts,
        stop: Stop,
        progress: Progress,
        on_frame: OnFrame | None,
    ) -> None:
        """Collect the frames of a websocket."""
        port, session = self._streaming_port(), self._client.session
        async with aclosing(frames(session, port, parts.path, body, stop)) as stream:
            async for frame in stream:
                if parts.add(frame):
                    progress.token()
                if on_frame is not None:
                    await on_frame(frame)

    def _stream_body(self, prepared: Prepared) -> Mapping[str, Any]:
        """The body for a websocket, to give the same answer as the blocking API does.

        That holds a token back, too, when there are stopping strings, as there are in a chat.
        """
        parameters = prepared.parameters
        if parameters.num_beams > 1:
            raise InvalidJob(
                f"num_beams is {parameters.num_beams} and a beam search can't be streamed; leave "
                "out stream or num_beams"
            )
        if prepared.chat is not None or parameters.stopping_strings:
            return prepared.body
        more = self.held_back()
        return {
            **prepared.body,
            "max_new_tokens": max(1, parameters.max_new_tokens) + more,
            "truncation_length": parameters.truncation_length + more,
        }

    async def _plain(self, body: Mapping[str, Any], parts: _Parts) -> None:
        """Ask the blocking API."""
        path = "/api/v1/chat" if parts.is_chat else "/api/v1/generate"
        parts.whole(await self._client.json("POST", path, body))

    async def _stoppable(self, work: Coroutine[Any, Any, None], stop: Stop) -> None:
        """Do the work; stopped or left early, the engine is told so until the work has ended.

        An engine that is told ends at its next token, in good order. One whose websocket closes
        keeps its lock until Python collects the garbage.
        """
        answer = asyncio.ensure_future(work)
        asked = asyncio.Event()
        stop.on_request(asked.set)
        try:
            await first_of(asyncio.wait({answer}), asked.wait())
            await self._until_done(answer, math.inf)
            answer.result()
        finally:
            await self._until_done(answer, self._stop_seconds)

    async def _until_done(self, answer: asyncio.Future[Any], seconds: float) -> None:
        """Tell the engine to stop, again and again: it forgets it when a generation begins."""
        deadline = time.monotonic() + seconds
        while not answer.done() and time.monotonic() < deadline:
            await self._stop_engine()
            await asyncio.wait({answer}, timeout=_STOP_POLL_SECONDS)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)

    async def _until_free(self, mark: int) -> list[Entry]:
        """Wait until the log tells the end of what was stopped; the next may not take it for its.

        What was stopped before it began has no end in the log.
        """
        return await self._log.wait(mark, (Output,), self._stop_seconds)

    async def _stop_engine(self) -> None:
        """Ask the engine to end what it generates; a dead engine has ended it."""
        stopping = self._client.json("POST", "/api/v1/stop-stream", {})
        with suppress(JobError, asyncio.TimeoutError):
            await asyncio.wait_for(stopping, self._stop_seconds)

    async def _check(self, mark: int, partial: Any) -> int | None:
        """The number of tokens, once the log says that the generation went well.

        Raises what went wrong.
        """
        entries = await self._log.wait(mark, (Output,), _LOG_SECONDS)
        failure = next((entry for entry in failures_of(entries) if entry.swallowed), None)
        if failure is not None:
            raise await self._failed(failure.text, partial)
        return tokens_of(entries)

    async def _cause(self, mark: int, error: EngineBroken, partial: Any) -> JobError:
        """The exception that the log tells of, else the broken connection itself."""
        failures = list(failures_of(await self._log.wait(mark, (Failure,), _CAUSE_SECONDS)))
        if failures:
            return await self._failed(failures[-1].text, partial)
        error.detail = error.detail or {"partial": partial}
        return error

    async def _failed(self, text: str, partial: Any) -> JobError:
        """The error for an exception; an engine that can't recover from it is ended."""
        if is_fatal(text):
            await asyncio.to_thread(self._abort)
        return generation_error(text, partial)


class _Parts:
    """What has come of an answer so far."""

    def __init__(self, *, is_chat: bool) -> None:
        self.is_chat = is_chat
        self.path = CHAT_PATH if is_chat else TEXT_PATH
        self.value: Any = None if is_chat else ""

    def add(self, frame: Frame) -> bool:
        """Take a frame; says whether there is anything new in it."""
        new = frame.data.get("history" if self.is_chat else "text")
        if not isinstance(new, dict if self.is_chat else str):
            raise EngineBroken("the engine sent a frame that makes no sense; try again")
        self.value = new if self.is_chat else self.value + new
        return bool(new)

    def whole(self, answer: Any) -> None:
        """Take the blocking API's answer."""
        try:
            self.value = answer["results"][0]["history" if self.is_chat else "text"]
        except (TypeError, LookupError) as error:
            raise EngineBroken("the engine sent an answer that makes no sense") from error


def _is_plain(prepared: Prepared) -> bool:
    """Whether a request that nobody streams is one for the blocking API."""
    if prepared.chat is None or prepared.parameters.num_beams > 1:
        return True
    return len(encode_body(prepared.body)) > MAX_MESSAGE_BYTES


async def count_held_back(session: aiohttp.ClientSession, port: int, log: ClassicLog) -> int:
    """How many of the tokens that a request may have a websocket does not show: 1 or 0.

    It generates one, so it tells that the websockets work, too. Raises EngineBroken, EngineDown.
    """
    mark = log.mark()
    async with aclosing(frames(session, port, TEXT_PATH, ONE_TOKEN, Stop())) as stream:
        async for _ in stream:
            continue
    shown = tokens_of(await log.wait(mark, (Output,), _LOG_SECONDS))
    return 1 if shown == 0 else 0
