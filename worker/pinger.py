"""The process that tells the platform that the worker lives: started again when it dies.

Without its pings the platform takes the worker for dead, and gives its jobs to another one.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

logger = logging.getLogger(__name__)

_STOP_SECONDS = 1.0
_PAUSE_SECONDS = 1.0


class Pinger:
    """Runs `ping(mirror)` in a process of its own, from `start` to `stop`."""

    def __init__(self, ping: Callable[[Any], None], mirror: Any) -> None:
        self._ping = ping
        self._mirror = mirror
        self._stopped, self._stop = multiprocessing.Pipe(duplex=False)
        self._process = self._spawn()
        self._keeper = threading.Thread(target=self._keep, name="pinger", daemon=True)

    def start(self) -> None:
        """Watch the process from now on."""
        self._keeper.start()

    def stop(self) -> None:
        """End the process: TERM, a second, KILL."""
        self._stop.send(None)
        self._keeper.join()
        self._process.terminate()
        self._process.join(_STOP_SECONDS)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._stop.close()
        self._stopped.close()

    def _spawn(self) -> multiprocessing.Process:
        process = multiprocessing.Process(target=self._ping, args=(self._mirror,), daemon=True)
        process.start()
        return process

    def _keep(self) -> None:
        """Start the process again whenever it ends, until it is to stop."""
        while self._stopped not in wait([self._stopped, self._process.sentinel]):
            self._process.join()
            if self._stopped.poll(_PAUSE_SECONDS):
                return
            code = self._process.exitcode
            logger.warning("the pinging process ended (code %s) and is started again", code)
            self._process.close()
            self._process = self._spawn()
