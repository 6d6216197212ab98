"""The job of a local run: on the command line, or in a file. Light: it is read before the spawn."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from worker.errors import SettingsError

MAX_JOB_FILE_BYTES = 20_000_000


def read_job(text: str | None, path: Path) -> dict[str, Any]:
    """The job in `text`, else in the file; raises SettingsError when there is none to be had."""
    where = "--test_input" if text is not None else path.name
    try:
        if text is None and path.stat().st_size > MAX_JOB_FILE_BYTES:
            raise SettingsError(f"{where} is over {MAX_JOB_FILE_BYTES} bytes")
        job = json.loads(path.read_text("utf-8") if text is None else text)
    except OSError as error:
        raise SettingsError(
            f"{where} can't be read ({error.strerror}); write a job there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{where} is not JSON: {error}") from error
    if not isinstance(job, dict):
        raise SettingsError(f'{where} must hold an object like {{"input": {{...}}}}')
    return {"id": f"local-{uuid.uuid4()}", **job}
