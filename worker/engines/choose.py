"""Which engine the settings mean. Light: it runs before the engine's process is started."""

from __future__ import annotations

from collections.abc import Mapping

from worker.engine_log import LogLine
from worker.engines.embedded import EmbeddedEngine
from worker.engines.engine import Engine
from worker.models import catalog
from worker.settings import Settings


def make_engine(settings: Settings, environ: Mapping[str, str], log: LogLine) -> Engine:
    """The engine of these settings, not started.

    environ: what the engine's process may see of it is passed on. log: gets each line that the
    engine prints. Raises SettingsError.
    """
    return EmbeddedEngine(settings, catalog(settings), environ, log)
