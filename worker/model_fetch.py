"""A model's path for the engine: found on a disk, or downloaded whole.

`obtain` is fast when the model is there: everything for downloads is imported only for one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.model_errors import ModelUnavailable
from worker.model_places import Places, find
from worker.model_source import LocalPath, Name, Source

if TYPE_CHECKING:
    from worker.model_hub import Hub
    from worker.model_lock import LockTimes
    from worker.model_retry import Patience

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of a download (None: the defaults), seconds between lines about it, and free space.

    free: how many bytes can be written below a folder.
    """

    patience: Patience | None = None
    lock: LockTimes | None = None
    line_every: float = 5.0
    free: Callable[[Path], int] | None = None


def obtain(
    source: Source,
    *,
    places: Places,
    hub: Hub | None,
    log: Log,
    cancel: threading.Event | None = None,
    limits: Limits = Limits(),
) -> Path:
    """Return the model's file, or its folder for safetensors; of a split GGUF the first part.

    It blocks until the model is there. hub: None for the public one without a token. cancel: set
    it to end a download soon. Raises ModelUnavailable with one sentence that tells the cause.
    """
    found = find(source, places, log)
    if found is not None:
        return found
    if isinstance(source, (LocalPath, Name)):
        labels = " or ".join(place.label for place in places.look)
        raise ModelUnavailable(f"there is no model {_name(source)} in {labels}")
    from worker.model_transfer import Transfer  # noqa: PLC0415 - only for a download

    return Transfer(
        source, places, hub=hub, log=log, cancel=cancel or threading.Event(), limits=limits
    ).run()


def _name(source: LocalPath | Name) -> str:
    """What to call a model without telling its folder."""
    return source.name if isinstance(source, Name) else source.path.name
