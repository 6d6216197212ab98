"""A stand-in for the library `xllamacpp`: its server answers at once, by `chaos.dialect`.

The whole worker is the real one then, its child process too (worker/engines/llama_child.py).
GGML_CHAOS_START says what it does wrong at its first start, and names the file that tells whether
there was one: it is among the variables that the worker passes on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chaos.dialect import answer
from chaos.mischief import MARK, MISCHIEF, log_a_gigabyte

WORD_SECONDS = 0.002
llama_load_mode = SimpleNamespace(LLAMA_LOAD_MODE_MMAP=0)


class CommonParams(SimpleNamespace):
    """Takes every parameter that it is given, and has every group of them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        group = SimpleNamespace()
        setattr(self, name, group)
        return group


class Server:
    """Serves from when it is made until the process ends."""

    def __init__(self, params: Any) -> None:
        _start_badly()

        class Handler(_Handler):
            slots = params.n_parallel

        self._server = _Server(("127.0.0.1", params.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def _start_badly() -> None:
    """Do what GGML_CHAOS_START says ("fault:file"), but only once."""
    fault, _, started = os.environ.get("GGML_CHAOS_START", "").partition(":")
    if not fault or Path(started).exists():
        return
    Path(started).touch()
    if fault == "hangs":
        threading.Event().wait()
    if fault == "logs":
        log_a_gigabyte()
    if fault == "fails":
        raise RuntimeError


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    slots = 1
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # named by the library
        self._answer(None)

    def do_POST(self) -> None:  # named by the library
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        prompt = str((body or {}).get("prompt"))
        if prompt.startswith(MARK):
            self._misbehave(prompt[len(MARK) :])
            return
        reply = answer(self.command, self.path, body, slots=self.slots)
        self.send_response(reply.status)
        if reply.events is None:
            self._finish(json.dumps(reply.body).encode())
        else:
            self._stream(reply.events)

    def _misbehave(self, name: str) -> None:
        self.close_connection = True
        for data in MISCHIEF[name]():
            self.wfile.write(data)

    def _finish(self, data: bytes) -> None:
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: tuple[str, ...]) -> None:
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(event.encode())
            time.sleep(WORD_SECONDS)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
