"""OpenAI-compatible requests to an engine that speaks that dialect: untouched on the way.

An answer that can be streamed is always asked for as a stream: when the job is cancelled the
connection closes and the engine's slot is free at once (llama.cpp does not notice a caller who
hangs up on a plain request while other slots work).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from worker.assemble import DONE, Assembler, assembler_for
from worker.client import EngineClient
from worker.errors import EngineBroken
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots, Stop, Use
from worker.stream import Sink

Check = Callable[[Mapping[str, Any]], None]


class Forwarder:
    """Runs one request of the engine's own dialect."""

    def __init__(self, client: EngineClient, slots: Slots, check: Check | None = None) -> None:
        """Share the engine's connection and slots; check: refuses bodies that would harm it."""
        self._client = client
        self._slots = slots
        self._check = check

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The engine's JSON; for a stream every event goes to the sink as text on the way.

        Raises JobError.
        """
        if request.method == "GET":
            return await self._client.json("GET", request.path)
        if self._check is not None:
            self._check(request.body)
        asked = request.body.get("stream_options") or {}
        hide_usage = not (isinstance(asked, dict) and asked.get("include_usage"))
        assembler = assembler_for(request.path, hide_usage=hide_usage)
        if assembler is None:
            async with self._slots.use(Use.MODEL):
                return await self._client.json("POST", request.path, request.body)
        async with self._slots.generation() as stop:
            progress.slot()
            result = await self._stream(request, assembler, sink, progress, stop)
        usage = result.get("usage")
        if isinstance(usage, dict):
            progress.tokens(usage.get("completion_tokens", usage.get("output_tokens")))
        return result

    async def _stream(
        self,
        request: Request,
        assembler: Assembler,
        sink: Sink,
        progress: Progress,
        stop: Stop,
    ) -> dict[str, Any]:
        """Ask for a stream, hand its events on if the caller wants them, and assemble it."""
        body = {**request.body, "stream": True}
        if request.path.endswith("completions"):
            body["stream_options"] = {"include_usage": True}
        finished = False
        try:
            async with aclosing(self._client.events(request.path, body, stop)) as events:
                async for event in events:
                    progress.token()
                    wanted = assembler.add(event)
                    finished = finished or event.data == DONE
                    if request.stream and wanted:
                        text = event.encode()
                        await sink.put(text, len(text))
        except EngineBroken as error:
            error.detail = error.detail or {"partial": assembler.partial()}
            raise
        result = assembler.result(stopped=stop.requested)
        if stop.requested and request.stream and not finished:
            await sink.put(f"data: {DONE}\n\n", len(DONE))
        return result
