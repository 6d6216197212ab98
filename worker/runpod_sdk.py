"""RunPod's SDK, with every part of its inside that the worker relies on named in one place.

The SDK's own loop leaves gaps of up to a second between jobs, so the worker brings its own; what is
the platform's protocol (URLs, headers, job-take, job-stop, heartbeat, fitness checks) stays the
SDK's. Read in runpod/runpod-python@07fc6e2 (1.12.0), runpod/serverless and its modules/.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

from worker.pinger import Pinger

# module of the SDK: the names in it that the worker uses. An SDK without one of them is refused.
INTERNALS = {
    "runpod.http_client": ("AsyncClientSession",),
    "runpod.serverless.modules.rp_fitness": ("run_fitness_checks",),
    "runpod.serverless.modules.rp_http": (
        "JOB_DONE_URL",
        "JOB_STREAM_URL",
        "send_result",
        "stream_result",
    ),
    "runpod.serverless.modules.rp_job": ("_job_stop_url", "get_job", "get_stop_signals"),
    "runpod.serverless.modules.rp_logger": ("RunPodLogger",),
    "runpod.serverless.modules.rp_ping": ("Heartbeat",),
    "runpod.serverless.modules.rp_scale": ("JobScaler",),
    "runpod.serverless.modules.worker_state": ("JobsProgress", "PingJobMirror"),
    "runpod.version": ("__version__",),
}
# What the SDK itself asks for before it pings (rp_ping.py, Heartbeat.start_ping).
PING_VARIABLES = ("RUNPOD_AI_API_KEY", "RUNPOD_POD_ID", "RUNPOD_WEBHOOK_PING")
# rp_http.py, _transmit: the body is bare JSON all the same
POST_HEADERS = {"charset": "utf-8", "Content-Type": "application/x-www-form-urlencoded"}


class Sdk:
    """The SDK's parts as functions; made by `load_sdk`.

    Raises AttributeError, naming the part, when the SDK has none of that name.
    """

    def __init__(self) -> None:
        parts: dict[str, Any] = {
            name: getattr(importlib.import_module(module), name)
            for module, names in INTERNALS.items()
            for name in names
        }
        self.version: str = parts["__version__"]
        self.session = parts["AsyncClientSession"]
        self.check_fitness = parts["run_fitness_checks"]
        self.send_result = parts["send_result"]
        self.stream_result = parts["stream_result"]
        self.job_scaler = parts["JobScaler"]
        self.stop_signals = parts["get_stop_signals"]
        self.can_be_stopped: bool = parts["_job_stop_url"]() is not None
        self._result_url: str = parts["JOB_DONE_URL"]
        self._chunk_url: str = parts["JOB_STREAM_URL"]
        self._get_job = parts["get_job"]
        self._progress = parts["JobsProgress"]()
        self._mirror = parts["PingJobMirror"]

    async def take(self, session: Any, count: int) -> list[Any]:
        """One long poll for at most `count` jobs; [] when none came. What is in it is unchecked.

        Raises aiohttp.ClientError (with .status where the platform answered: 429, 500, ...) and
        Exception for a lone job that has no id or no input.
        """
        return await self._get_job(session, count) or []

    def result_url(self, job_id: str, *, stream: bool) -> str:
        """Where a job's result is posted; `stream` tells whether chunks were posted before it."""
        return self._result_url.replace("$ID", job_id) + f"&isStream={str(stream).lower()}"

    def chunk_url(self, job_id: str) -> str:
        """Where a job's chunks are posted; isStream is false on them (rp_http.stream_result)."""
        return self._chunk_url.replace("$ID", job_id) + "&isStream=false"

    def begin(self, job_id: str) -> None:
        """Count a job as in progress: job-take's flag and the pings tell the platform."""
        self._progress.add(job_id)

    def end(self, job_id: str) -> None:
        """Take a job back out of the progress."""
        self._progress.remove(job_id)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Ping from a process of its own; it ends with the block, or with the worker's death.

        Nothing is started where the SDK would not ping (PING_VARIABLES).
        """
        if not all(os.environ.get(name) for name in PING_VARIABLES):
            yield
            return
        mirror = self._mirror()
        self._progress.set_mirror(mirror)
        pinger = Pinger(_ping, mirror)
        pinger.start()
        try:
            yield
        finally:
            self._progress.set_mirror(None)
            pinger.stop()


def load_sdk() -> Sdk:
    """Import the SDK; it reads its RUNPOD_* variables while it is imported.

    Its log is kept at INFO or above: at DEBUG, its default, it writes out jobs' outputs.
    """
    with _light_imports():
        importlib.import_module("runpod")
    sdk = Sdk()
    logger = importlib.import_module("runpod.serverless.modules.rp_logger").RunPodLogger
    if logger.level in ("TRACE", "DEBUG"):
        logger.level = "INFO"
    return sdk


@contextmanager
def _light_imports() -> Iterator[None]:
    """Keep two slow imports of the SDK out of the cold start: 1.4 of 2.1 seconds.

    cpuinfo is asked for the processor's name while the SDK is imported (utils/rp_debugger.py; 1.2 s
    in child processes), and only the debugger's report, which is off, shows it. paramiko is used by
    the SDK's command line alone. Both are real again for everybody else afterwards.
    """
    cpuinfo = ModuleType("cpuinfo")
    vars(cpuinfo)["get_cpu_info"] = lambda: {"brand_raw": "unknown"}
    stand_ins = {"cpuinfo": cpuinfo, "paramiko": ModuleType("paramiko")}
    real = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in real.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _ping(mirror: Any) -> None:
    """Run the SDK's ping loop: without the worker's signal handlers, and never as an orphan."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    load_sdk()
    importlib.import_module("runpod.serverless.modules.rp_ping").Heartbeat.process_loop(mirror)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that came."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(0)
