"""Whether the engine's port is open: `python -m worker.healthcheck`, exit code 0 or 1.

A container's worker ends, and the container with it, when its engine is lost, so this says what is
left to say: an engine is up. It asks nothing of the engine: an HTTP request would wait behind a
model that is being loaded, and would be one more request in its log.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from worker.errors import SettingsError
from worker.settings import Settings

_SECONDS = 2.0


def main(environ: Mapping[str, str]) -> int:
    """Return 0 when something listens on the engine's port on 127.0.0.1, else 1."""
    try:
        port = Settings.from_env(environ).engine_port
        socket.create_connection(("127.0.0.1", port), _SECONDS).close()
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"the engine is not up: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
