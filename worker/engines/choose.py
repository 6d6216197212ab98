"""Which engine the settings mean. Light: it runs before the engine's process is started."""

from __future__ import annotations

from collections.abc import Mapping

from worker.engine_log import LogLine
from worker.engines.engine import Engine
from worker.errors import SettingsError
from worker.settings import Settings


def make_engine(settings: Settings, environ: Mapping[str, str], log: LogLine) -> Engine:
    """The engine of these settings, not started.

    environ: what the engine's process may see of it is passed on. log: gets each line that the
    engine prints. Raises SettingsError.
    """
    if settings.engine == "embedded" or (settings.engine == "auto" and settings.webui_dir is None):
        # Each engine's modules are imported for it alone: imports are part of a cold start.
        from worker.engines.embedded import EmbeddedEngine  # noqa: PLC0415
        from worker.models import catalog  # noqa: PLC0415

        return EmbeddedEngine(settings, catalog(settings), environ, log)
    return _make_webui(settings, environ, log)


def _make_webui(settings: Settings, environ: Mapping[str, str], log: LogLine) -> Engine:
    """The engine for the generation that WEBUI_DIR holds; raises SettingsError."""
    from worker.engines.webui import Generation, open_checkout  # noqa: PLC0415 - as above

    if settings.webui_dir is None:
        raise SettingsError(
            f"WEBUI_DIR is not set; with ENGINE={settings.engine} it must be a checkout of "
            "text-generation-webui"
        )
    checkout = open_checkout(settings.webui_dir)
    if settings.engine not in ("auto", checkout.generation.value):
        raise SettingsError(
            f"ENGINE is {settings.engine!r}; WEBUI_DIR holds the {checkout.generation.value} one"
        )
    if checkout.generation is Generation.CURRENT:
        from worker.engines.current import CurrentEngine  # noqa: PLC0415 - as above

        return CurrentEngine(settings, checkout, environ, log)
    from worker.engines.classic import ClassicEngine  # noqa: PLC0415 - as above

    return ClassicEngine(settings, checkout, environ, log)
