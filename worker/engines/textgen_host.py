"""What the parts that speak to textgen over HTTP ask of its process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from worker.engines.current_launch import Launch
from worker.engines.textgen_load import LoadedWith
from worker.engines.textgen_state import State
from worker.settings import Settings


class Host(Protocol):
    """What the backend asks of the engine's process."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""
        ...

    @property
    def launch(self) -> Launch:
        """How it was started."""
        ...

    @property
    def state(self) -> State:
        """What is loaded, as far as is known."""
        ...

    loaded_with: LoadedWith
    """What the last load asked for."""

    @property
    def extra_flags_path(self) -> str:
        """Its extension's route that sets llama-server's extra flags for the next load."""
        ...

    @property
    def decode_path(self) -> str:
        """Its extension's route that makes text of tokens, special ones too."""
        ...

    async def refresh(self) -> State:
        """Ask what is loaded."""
        ...

    async def info(self) -> Mapping[str, Any]:
        """Its args and settings."""
        ...

    async def load_fault(self) -> str:
        """Why the last load failed."""
        ...
