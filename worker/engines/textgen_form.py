"""A job's JSON -> the multipart form that one of textgen's routes takes.

The route is /v1/audio/transcriptions. In v4.9 it works for no file, and says so with a bare status
500: it gives the file's bytes to pydub as a path, and asks the form for a method that it has not
(https://github.com/oobabooga/text-generation-webui, modules/api/script.py). A version that mends
this is answered as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from worker.client import EngineClient
from worker.engine_answer import parse_answer, text_of
from worker.engines.textgen_routes import form_fields
from worker.errors import EngineBroken, TooLarge
from worker.output import MAX_OUTPUT_BYTES


async def post_form(client: EngineClient, path: str, body: Mapping[str, Any]) -> Any:
    """The engine's JSON for a file. Raises InvalidJob, or a JobError of the engine's."""
    name, data, others = form_fields(body)
    form = aiohttp.FormData()
    form.add_field("file", data, filename=name, content_type="application/octet-stream")
    for key, value in others.items():
        form.add_field(key, value)
    try:
        async with client.session.post(
            client.base_url + path, data=form, allow_redirects=False
        ) as response:
            raw = await _bounded(response)
    except (aiohttp.ClientError, OSError) as error:
        raise EngineBroken("the engine broke off its answer; try again") from error
    if response.status >= 500:
        raise EngineBroken(
            f"the engine's {path} failed (status {response.status}): textgen v4.9's works for no "
            "file, and any needs SpeechRecognition, pydub and Whisper; use another endpoint for it"
        )
    return parse_answer(response.status, text_of(raw))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer; raises TooLarge."""
    parts: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        parts.append(piece)
        size += len(piece)
        if size > MAX_OUTPUT_BYTES:
            raise TooLarge(f"the answer is over {MAX_OUTPUT_BYTES} bytes; send a shorter file")
    return b"".join(parts)
