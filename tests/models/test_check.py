from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.models.weights import gguf, safetensors
from worker.model_check import check, file_fault
from worker.model_errors import ModelUnavailable
from worker.models import bundled_path

WHOLE = gguf()


def fault(path: Path, data: bytes) -> str | None:
    """What is found wrong with these bytes."""
    path.write_bytes(data)
    return file_fault(path)


@pytest.mark.parametrize(
    "data",
    [WHOLE, gguf(words=5000), gguf(64, kind=2, bytes_each=1), gguf(kind=99, bytes_each=1)],
    ids=["whole", "large vocabulary", "quantised", "unknown type"],
)
def test_a_whole_gguf_has_no_fault(tmp_path: Path, data: bytes) -> None:
    assert None is fault(tmp_path / "a.gguf", data)


def test_the_real_model_has_no_fault() -> None:
    path = bundled_path()
    assert path is not None

    assert None is file_fault(path)


@pytest.mark.parametrize("size", [*range(1, len(WHOLE), 97), len(WHOLE) - 1])
def test_a_gguf_cut_anywhere_is_found_out(tmp_path: Path, size: int) -> None:
    assert "cut short" in (fault(tmp_path / "a.gguf", WHOLE[:size]) or "") or size < 4


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"<html>" * 20, "is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a Git LFS pointer"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1) + bytes(64), "damaged header or a GGUF version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1) + bytes(64), "damaged header or a GGUF"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + bytes(64),
            "is cut short",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77) + bytes(64),
            "has a damaged header",
        ),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 99) + bytes(64),
            "has a damaged header",
        ),
    ],
)
def test_a_damaged_gguf_is_told(tmp_path: Path, data: bytes, text: str) -> None:
    assert text in (fault(tmp_path / "a.gguf", data) or "")


@pytest.mark.parametrize("bit", range(0, 200, 7))
def test_a_flipped_bit_of_the_header_never_crashes(tmp_path: Path, bit: int) -> None:
    data = bytearray(WHOLE)
    data[bit] ^= 128

    fault(tmp_path / "a.gguf", bytes(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (safetensors()[:-1], "is damaged: it has"),
        (safetensors() + b"x", "is damaged: it has"),
        (safetensors()[:20], "is cut short or not a safetensors file"),
        (b"<html><body>Not found</body>", "is cut short or not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "has a damaged header"),
        (struct.pack("<Q", 9) + b'{"w": {}}', "has a damaged header"),
        (struct.pack("<Q", 3) + b"\xff{}", "has a damaged header"),
    ],
)
def test_damaged_safetensors_are_told(tmp_path: Path, data: bytes, text: str) -> None:
    assert text in (fault(tmp_path / "a.safetensors", data) or "")


def test_whole_safetensors_have_no_fault(tmp_path: Path) -> None:
    assert None is fault(tmp_path / "a.safetensors", safetensors())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-00001-of-00002.gguf").write_bytes(WHOLE)

    with pytest.raises(ModelUnavailable) as caught:
        check(tmp_path / "a-00001-of-00002.gguf", thorough=False)

    assert "the model file a-00002-of-00002.gguf is not there" == str(caught.value)


def test_a_shard_of_the_index_that_is_missing_is_named(tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / names[0]).write_bytes(safetensors())

    with pytest.raises(ModelUnavailable, match=f"^the model file {names[1]} is not there$"):
        check(tmp_path, thorough=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": [1]}'])
def test_a_damaged_index_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)

    with pytest.raises(ModelUnavailable, match=r"index.json is damaged"):
        check(tmp_path, thorough=True)


def test_an_index_of_other_weights_is_not_looked_at(tmp_path: Path) -> None:
    """Quantised weights often lie beside the index of those that they were made of."""
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "gptq_model-4bit-128g.safetensors").write_bytes(safetensors())

    check(tmp_path, thorough=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_missing_part_is_named_without_an_index(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model-00002-of-00002{suffix}").write_bytes(safetensors())

    with pytest.raises(ModelUnavailable, match=rf"model-00001-of-00002{suffix} is not there"):
        check(tmp_path, thorough=True)


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"has no weights in it"):
        check(tmp_path, thorough=True)
