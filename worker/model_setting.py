"""The settings that name models made paths: found on a disk, or downloaded whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from worker.settings import Settings

if TYPE_CHECKING:
    from worker.model_places import Places
    from worker.model_source import Source


def with_local_models(settings: Settings, log: Callable[[str], None]) -> Settings:
    """The settings with paths in MODEL, MODEL_MMPROJ and LORA, wherever they name files to get.

    A name that is in none of the models folders stays one: text-generation-webui has folders of its
    own, and LoRAs have LORAS_DIR. It blocks while a model is downloaded; SIGTERM ends that at once,
    and the next start goes on.
    Raises SettingsError, or ModelUnavailable with one sentence.
    """
    if not (settings.model or settings.model_mmproj or settings.lora):
        return settings
    # Imported here: a start with the bundled model needs none of it.
    from worker.model_places import link, places  # noqa: PLC0415
    from worker.model_source import Name, Repository, projector_of, read  # noqa: PLC0415

    look = places(
        models_dir=settings.models_dir,
        baked=settings.model_image_dir,
        volume=settings.volume,
        local=settings.model_download_dir,
    )

    def local(source: Source, text: str) -> str:
        return str(_path(source, look, settings, log) or text)

    def lora(text: str) -> str:
        source = read(text, "LORA")
        if isinstance(source, Name):
            return text
        path = _path(source, look, settings, log)
        if path is not None and path.is_dir() and isinstance(source, Repository):
            path = link(source, path, look)
        return str(path or text)

    model, mmproj = read(settings.model, "MODEL"), settings.model_mmproj
    with _ended_by_sigterm():
        return replace(
            settings,
            model=local(model, settings.model),
            model_mmproj=mmproj and local(projector_of(model, mmproj), mmproj),
            lora=tuple(map(lora, settings.lora)),
        )


def _path(
    source: Source, look: Places, settings: Settings, log: Callable[[str], None]
) -> Path | None:
    """Where it is; None for a name or a path that is not there: the engine tells what there is."""
    from worker.model_places import find  # noqa: PLC0415 - as above
    from worker.model_source import LocalPath, Name  # noqa: PLC0415 - as above

    if isinstance(source, LocalPath):
        return source.path if source.path.exists() else None
    if isinstance(source, Name):
        found = find(source, look, log)
        return None if found is None else found.absolute()
    from worker.model_fetch import Limits, obtain  # noqa: PLC0415 - as above
    from worker.model_hub import Hub  # noqa: PLC0415 - as above
    from worker.model_retry import Patience  # noqa: PLC0415 - as above

    hub = Hub(settings.hf_token, settings.hf_endpoint, settings.hf_hub_offline)
    limits = Limits(patience=Patience(total=settings.model_download_timeout))
    return obtain(source, places=look, hub=hub, log=log, limits=limits).absolute()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Leave the block by SystemExit at SIGTERM, so that what it holds is let go."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
