"""What went wrong inside the classic -> one sentence that tells the caller what to do. Pure."""

from __future__ import annotations

import re
from typing import Any

from worker.engines.webui_causes import MEMORY, cause_of
from worker.errors import EngineBroken, EngineDown, InvalidJob, JobError
from worker.plain import plain

NO_MODEL = "no model is loaded; load one with /model, action load"
# After one of these every further use of the GPU fails: only a new process helps.
_FATAL = re.compile("CUDA error|device-side assert|illegal memory access", re.IGNORECASE)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)?:\s*")


def generation_error(text: str, partial: Any = None) -> JobError:
    """The error of a generation that ended with this exception, with what there was of it."""
    if text.startswith("No model is loaded"):
        return EngineDown(NO_MODEL)
    if "strictly positive float" in text and "temperature" in text:
        return InvalidJob(
            "temperature 0 can't be sampled with by this model's loader; send do_sample false, or "
            "a temperature above 0"
        )
    detail = None if partial is None else {"partial": partial}
    if cause_of([text]) == MEMORY:
        return EngineBroken(f"{MEMORY}; shorten the prompt or ask for fewer tokens", detail=detail)
    return EngineBroken(
        f"the engine failed at this request: {exception_words(text)}; change the request",
        detail=detail,
    )


def load_error(text: str) -> str:
    """The cause of a failed load, as the middle of a sentence."""
    return cause_of([text]) or exception_words(text)


def exception_words(text: str) -> str:
    """An exception's own words: of `ValueError: no` and of `ValueError('no')` it is "no"."""
    repr_of = re.fullmatch(r"\w+\((['\"])(.*)\1,?\)", text, re.DOTALL)
    words = repr_of[2].replace("\\n", " ") if repr_of else _EXCEPTION.sub("", text, count=1)
    return plain(words.strip().rstrip(".")) or plain(text)


def is_fatal(text: str) -> bool:
    """Whether the process is of no more use after this exception."""
    return bool(_FATAL.search(text)) and "out of memory" not in text.lower()
