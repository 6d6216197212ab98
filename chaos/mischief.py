"""What an engine may do wrong when it is asked: what it sends, and what it does meanwhile.

A request whose prompt is `MARK` and a name gets that from the stand-in engine (library/).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MARK = "chaos: "
MB = 1_000_000
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_WORD = b'data: {"content": " word", "stop": false}\n\n'
_END = b'data: {"content": "", "stop": true, "stop_type": "limit"}\n\n'
_LOG_BYTES = 1000 * MB


def _closes_after_headers() -> Iterator[bytes]:
    yield _STREAM


def _closes_without_a_word() -> Iterator[bytes]:
    yield from ()


def _half_a_json() -> Iterator[bytes]:
    yield _STREAM + _WORD + b'data: {"content": " wo'


def _no_end() -> Iterator[bytes]:
    yield _STREAM + _WORD


def _endless_headers() -> Iterator[bytes]:
    yield _JSON
    while True:
        yield b"X-Header: value\r\n" * 1000


def _gigabyte() -> Iterator[bytes]:
    yield _JSON + b"Content-Length: 1000000000\r\n\r\n"
    for _ in range(1000):
        yield b"[" * MB


def _gigabyte_of_events() -> Iterator[bytes]:
    yield _STREAM
    word = b'data: {"content": "' + b"x" * MB + b'", "stop": false}\n\n'
    for _ in range(1000):
        yield word


def _slow_loris() -> Iterator[bytes]:
    for byte in _STREAM + _WORD * 100:
        yield bytes([byte])
        time.sleep(0.1)


def _invalid_utf8() -> Iterator[bytes]:
    yield _STREAM + b'data: {"content": "\xff\xfe"}\n\n'


def _lies() -> Iterator[bytes]:
    body = b'{"error": {"message": "CUDA error: an illegal memory access was encountered"}}'
    yield _JSON + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def _logs_a_gigabyte() -> Iterator[bytes]:
    yield _STREAM + _WORD
    log_a_gigabyte()
    yield _WORD + _END


def _fills_the_disk() -> Iterator[bytes]:
    yield _STREAM + _WORD
    fill(Path(tempfile.gettempdir()))
    yield _WORD + _END


def _crashes() -> Iterator[bytes]:
    yield _STREAM + _WORD
    os.abort()


def _cuda_error() -> Iterator[bytes]:
    yield _STREAM + _WORD
    sys.stdout.write("CUDA error: an illegal memory access was encountered\n")
    sys.stdout.flush()
    os.abort()


MISCHIEF: dict[str, Callable[[], Iterator[bytes]]] = {
    "closes the socket after headers": _closes_after_headers,
    "closes the socket without a word": _closes_without_a_word,
    "half a JSON": _half_a_json,
    "a stream without its end": _no_end,
    "endless headers": _endless_headers,
    "1 GB answer": _gigabyte,
    "1 GB of events": _gigabyte_of_events,
    "slow-loris answer": _slow_loris,
    "invalid UTF-8": _invalid_utf8,
    "lies: 200 with an error": _lies,
    "prints 1 GB of log": _logs_a_gigabyte,
    "fills the disk": _fills_the_disk,
    "crashes": _crashes,
    "CUDA error": _cuda_error,
}


def log_a_gigabyte() -> None:
    """Print it, as lines of a log."""
    lines = (b"x" * 99 + b"\n") * 10_000
    for _ in range(_LOG_BYTES // len(lines)):
        sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def fill(folder: Path) -> None:
    """Write into a folder until nothing more goes in, 1 GB at most."""
    with suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        for _ in range(1000):
            file.write(b"x" * MB)
