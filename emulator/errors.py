"""What the emulator answers when it refuses a request."""

from __future__ import annotations


class Refused(Exception):
    """A request is answered with this HTTP status and this sentence."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status (400..599) and the sentence."""
        super().__init__(message)
        self.status = status
        self.message = message
