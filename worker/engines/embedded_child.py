"""The embedded engine's child: checked before it starts, started, and explained when it ended.

Nothing heavy is imported here: the engine is started before the rest of the worker is loaded.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from worker.engine_log import LogLine
from worker.engines.llama_child import FAULT, Options
from worker.engines.webui_causes import BAD_MMPROJ, BROKEN_LORA, CUDA, MEMORY
from worker.errors import EngineStartFailed
from worker.models import check_model
from worker.plain import plain
from worker.process import EngineProcess, OnExit

HOST = "127.0.0.1"
_ROOT = Path(__file__).parent.parent.parent
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
_ENVIRONMENT_PREFIXES = ("CUDA_", "NVIDIA_", "GGML_", "OMP_", "GOMP_", "GLIBC_")
# What llama.cpp prints -> the cause, the most telling first.
_CAUSES = (
    ("couldn't bind", "its port is taken"),
    ("out of memory", MEMORY),
    ("failed to allocate", MEMORY),
    ("cuda error", CUDA),
    ("lora adapter", BROKEN_LORA),
    ("failed to load clip model", BAD_MMPROJ),
    ("unknown model architecture", "it does not know this kind of model"),
    ("error loading model", "the model file is broken or of an unknown kind"),
    ("failed to load model", "the model file is broken or of an unknown kind"),
)


def start_child(
    options: Options, environ: Mapping[str, str], log: LogLine, on_exit: OnExit
) -> EngineProcess:
    """Start the child after a look at the model's file and the port.

    Raises EngineStartFailed, with a sentence of its own for each fault: llama.cpp has only one
    for all of them.
    """
    for file in (options.model, *options.loras):
        check_model(Path(file))
    check_port(options.port)
    argv = [sys.executable, "-m", "worker.engines.llama_child", json.dumps(asdict(options))]
    try:
        return EngineProcess.spawn(
            argv, cwd=_ROOT, env=_child_environment(environ), log=log, on_exit=on_exit
        )
    except OSError as error:
        raise EngineStartFailed(f"no process can be made: {error.strerror}") from error


def check_port(port: int) -> None:
    """Bind the port on loopback and let it go; EngineStartFailed when that can't be done."""
    with socket.socket() as probe:
        # Like the server: connections that a former child left behind are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise EngineStartFailed(f"the engine's port {port} is taken") from error
            raise EngineStartFailed(
                f"the engine's port {port} can't be used: {error.strerror}"
            ) from error


def explain(process: EngineProcess) -> str:
    """Why a child ended, as one plain sentence: what it said itself, else how it ended."""
    lines = process.tail()
    for line in reversed(lines):
        if line.startswith(FAULT):
            return f"the engine ended: {_cause(lines) or plain(line[len(FAULT) :])}"
    if (process.returncode or 0) < 0:
        # llama.cpp aborts at an error of the GPU's; what it printed before tells which.
        cause = _cause(lines) if process.ended_by_itself else None
        return f"the engine ended: {cause or process.exit_text()}"
    last = f", its last words: {plain(lines[-1])}" if lines else ""
    return f"the engine ended: {process.exit_text()}{last}"


def _cause(lines: list[str]) -> str | None:
    """Find the cause that llama.cpp's log tells, None when it tells none of the known ones."""
    text = "\n".join(lines).lower()
    return next((cause for mark, cause in _CAUSES if mark in text), None)


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick what the child needs of the worker's environment.

    Threads that spin while they wait make one stream faster and everything else up to ten times
    slower, so they sleep unless the operator wants otherwise. Pages of 2 MB for what is allocated
    (glibc 2.35 and newer; others ignore it) take 0.1 s from the start: the cache of 4 x 2048 tokens
    is 180 MB that llama.cpp sets to zero.
    """
    passed = {
        name: value
        for name, value in environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **passed,
    }
