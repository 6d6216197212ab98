"""The setting MODEL made a path: a repository or a URL is found on a disk, or downloaded whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from worker.settings import Settings

_REMOTE_MARKS = ("/", "://")


def with_local_model(settings: Settings, log: Callable[[str], None]) -> Settings:
    """The settings with the path of the model's file in place of a repository or a URL.

    It blocks while a model is downloaded; SIGTERM ends that at once, and the next start goes on.
    Raises SettingsError, or ModelUnavailable with one sentence.
    """
    if not any(mark in settings.model for mark in _REMOTE_MARKS):
        return settings
    # Imported here: most starts need none of it.
    from worker.model_fetch import Limits, obtain  # noqa: PLC0415
    from worker.model_places import find, places  # noqa: PLC0415
    from worker.model_source import LocalPath, parse  # noqa: PLC0415

    source = parse(settings.model)
    if isinstance(source, LocalPath):
        return settings
    look = places(
        models_dir=settings.models_dir,
        baked=settings.model_image_dir,
        volume=settings.volume,
        local=settings.model_download_dir,
    )
    path = find(source, look, log)
    if path is None:
        from worker.model_hub import Hub  # noqa: PLC0415
        from worker.model_retry import Patience  # noqa: PLC0415

        hub = Hub(settings.hf_token, settings.hf_endpoint, settings.hf_hub_offline)
        limits = Limits(patience=Patience(total=settings.model_download_timeout))
        with _ended_by_sigterm():
            path = obtain(source, places=look, hub=hub, log=log, limits=limits)
    return replace(settings, model=str(path.absolute()))


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
