"""The one error of finding, checking and downloading models."""

from __future__ import annotations

from worker.errors import EngineStartFailed


class ModelUnavailable(EngineStartFailed):
    """The model is not to be had; the text tells why and what to change, without any secret."""
