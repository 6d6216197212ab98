"""The model's files are in the page cache early, and nothing that goes wrong there is noticed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from worker import joblog
from worker.read_ahead import available_memory, read, start_reading, weight_files

LIMIT = 20.0
MEGABYTE = 1_000_000


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(os.urandom(100))


def cached(path: Path, offset: int) -> bool:
    """Whether a byte can be read without waiting for the disk."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


def forget(path: Path) -> None:
    """Drop a file from the page cache, where the file system has one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblog.logger, "handlers", [caplog.handler])
    monkeypatch.setattr(joblog.logger, "propagate", False)
    caplog.set_level(logging.DEBUG, joblog.logger.name)


def test_the_whole_file_is_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(9 * MEGABYTE))
    forget(path)

    start_reading(path, until=lambda: False).join(LIMIT)

    assert cached(path, 0)
    assert cached(path, 9 * MEGABYTE - 1)


def test_reading_ends_when_the_engine_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(20 * MEGABYTE))
    looks = iter([False, True])

    assert read([path], lambda: next(looks), 1 << 30) == 4 << 20


def test_no_more_is_read_than_is_worth_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(20 * MEGABYTE))

    assert read([path, path], lambda: False, 5 << 20) == 8 << 20


@pytest.mark.parametrize(
    ("model", "files"),
    [
        ("one.gguf", ["one.gguf"]),
        ("two-00001-of-00002.gguf", ["two-00001-of-00002.gguf", "two-00002-of-00002.gguf"]),
        ("", ["a.safetensors", "b.safetensors"]),
    ],
    ids=["file", "parts", "folder"],
)
def test_a_models_weights_are_read_and_nothing_else(
    tmp_path: Path, model: str, files: list[str]
) -> None:
    make(tmp_path, "one.gguf", "two-00001-of-00002.gguf", "two-00002-of-00002.gguf")
    make(tmp_path, "b.safetensors", "a.safetensors", "pytorch_model.bin", "config.json")

    assert files == [path.name for path in weight_files(tmp_path / model)]


def test_without_safetensors_it_is_the_older_format(tmp_path: Path) -> None:
    make(tmp_path, "pytorch_model.bin", "tokenizer.json")

    assert [tmp_path / "pytorch_model.bin"] == weight_files(tmp_path)


def test_what_would_take_most_of_the_memory_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "model.gguf")
    messages(caplog, monkeypatch)

    start_reading(tmp_path / "model.gguf", until=lambda: False, available=lambda: 100).join(LIMIT)

    assert caplog.messages == ["the weights are not read ahead: they would take most of the memory"]


def test_a_file_that_is_not_there_is_the_engines_to_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages(caplog, monkeypatch)

    start_reading(tmp_path / "no.gguf", until=lambda: False).join(LIMIT)

    (message,) = caplog.messages
    assert message.startswith("the weights are not read ahead: [Errno 2]")


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 8_192_000),
        ({"memory.max": "max", "memory.current": "1000000"}, 8_192_000),
        ({"memory.max": "5000000", "memory.current": "1000000"}, 4_000_000),
        (
            {
                "memory/memory.limit_in_bytes": "3000000",
                "memory/memory.usage_in_bytes": "1000000",
            },
            2_000_000,
        ),
    ],
    ids=["no container", "no limit", "version 2", "version 1"],
)
def test_a_containers_limit_bounds_the_memory(
    tmp_path: Path, files: dict[str, str], available: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert available == available_memory(meminfo, tmp_path)
