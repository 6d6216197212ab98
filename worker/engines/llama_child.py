"""The embedded engine's own process: llama.cpp's HTTP server inside Python.

`python -m worker.engines.llama_child '{"model": ...}'` with the fields of `Options` as JSON. It
listens on 127.0.0.1 and ends at SIGTERM at once: deleting a server that is busy can take more
than 20 seconds (xllamacpp 2026.10.11549), so whoever stops it lets it become idle first.

A fault that it finds itself is a line that begins with `FAULT`; `IMPORTED` is a line that it prints
before it loads the model.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

FAULT = "llama_child: "
IMPORTED = "llama.cpp is imported"
N_BATCH = 2048  # llama.cpp's default, reported by the worker
_WARNINGS = 2  # llama.cpp logs several lines per request from 3 on


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """model: path of the GGUF file. name: what the API calls it. context: tokens of one slot.

    loras: paths of GGUF files that go onto the model, each with its full strength. mmproj: path of
    the projector of a vision model, "" for none.
    """

    model: str
    name: str
    port: int
    slots: int
    context: int
    threads: int
    gpu_layers: int
    loras: tuple[str, ...] = ()
    mmproj: str = ""


class _ChildError(Exception):
    """The server can't run; the text is one plain sentence."""


def main(arguments: list[str]) -> int:
    """Serve until a signal ends the process; returns 1 after a fault."""
    options = Options(**json.loads(arguments[0]))
    # Inherited dispositions would outlive exec; while the library is inside C++ only the
    # kernel's own handling is immediate.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        library = load_library()
        sys.stdout.write(f"{IMPORTED}\n")
        sys.stdout.flush()
        server = serve(library, options)
    except _ChildError as fault:
        # llama.cpp logs in a thread of its own and may be in the middle of a line.
        sys.stdout.write(f"\n{FAULT}{fault}\n")
        return 1
    while server:
        signal.pause()
    return 0


def load_library() -> ModuleType:
    """Import llama.cpp; raises _ChildError when this system lacks what it needs."""
    if os.uname().machine == "x86_64" and not _has_avx2(Path("/proc/cpuinfo")):
        raise _ChildError("this processor has no AVX2, which the embedded engine needs")
    try:
        import xllamacpp  # noqa: PLC0415 - it crashes on a processor without AVX2
    except ImportError as error:
        if "libgomp" in str(error):
            raise _ChildError(
                "the system library libgomp.so.1 is missing (package libgomp1)"
            ) from error
        raise _ChildError(f"xllamacpp can't be imported: {error}") from error
    library: ModuleType = xllamacpp
    return library


def serve(library: ModuleType, options: Options) -> object:
    """Load the model and start the server; it runs in threads as long as the result is kept.

    Raises _ChildError; llama.cpp has printed the cause by then.
    """
    params = library.CommonParams()
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.model.path = options.model
    params.model_alias = {options.name}
    params.lora_adapters = [library.CommonAdapterLoraInfo(path, 1.0) for path in options.loras]
    params.mmproj.path = options.mmproj
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.kv_unified = False  # each slot has its whole context, whatever the others use
    params.n_batch = N_BATCH
    params.n_gpu_layers = options.gpu_layers
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.load_mode = library.llama_load_mode.LLAMA_LOAD_MODE_MMAP
    params.fit_params = False  # measuring what fits doubles the start
    params.cache_ram_mib = 0  # the default keeps up to 8 GB of old prompts
    params.cache_idle_slots = False  # works only with that cache
    params.embedding = False
    params.endpoint_slots = True
    params.ui = False
    params.cors_origins = ""  # no web page has business here
    params.warmup = False  # the worker's own first token is one; llama.cpp's takes 50 ms
    params.verbosity = _WARNINGS
    try:
        server: object = library.Server(params)
    except RuntimeError as error:
        raise _ChildError("llama.cpp could not start its server") from error
    return server


def _has_avx2(cpuinfo: Path) -> bool:
    """Whether the processor has AVX2; True when that can't be told."""
    try:
        return " avx2" in cpuinfo.read_text(errors="replace")
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
