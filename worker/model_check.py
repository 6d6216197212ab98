"""Whether a model on disk is complete: parts, sizes, headers and digests.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; safetensors:
https://github.com/huggingface/safetensors#format. A truncated file keeps a good beginning, so the
header's tensor data must fit in the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.model_errors import ModelUnavailable
from worker.model_files import ADAPTER, GGUF, INDEX, WEIGHTS, missing_parts, parts_of

# The pickled ones are an engine's and an operator's choice; they are never downloaded.
_WEIGHTS = (WEIGHTS, GGUF, ".bin", ".pt", ".pth")
_BESIDE = ("config.json", ADAPTER)
_START = 64
_BLOCK = 1 << 20
_MAX_JSON = 100_000_000
_MAX_COUNT = 10_000_000
# Bytes of the GGUF metadata types 0 to 12; 8 is a string and 9 an array.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
# Tensor type: (values of a block, bytes of a block), from ggml/src/ggml.c of ggml-org/llama.cpp.
_TENSORS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip  # a table


def check(path: Path, *, thorough: bool) -> None:
    """Check a GGUF file with all its parts, or a folder with weights.

    thorough: also walk the headers of GGUF files (10 to 100 ms by vocabulary); else only their
    beginning. Folders are always looked at thoroughly, which costs nothing.
    Raises ModelUnavailable with a sentence that names the file, not its folder.
    """
    for part in _folder(path) if path.is_dir() else parts_of(path):
        fault = file_fault(part, thorough=thorough)
        if fault:
            raise ModelUnavailable(f"the model file {part.name} {fault}")


def file_fault(path: Path, *, thorough: bool = True) -> str | None:
    """Tell what is wrong with one file, as the end of a sentence; None when nothing is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_START)
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    if start.startswith(b"version https://git-lfs"):
        return "is only a Git LFS pointer; fetch the file itself"
    if not start:
        return "is empty"
    if path.suffix == GGUF:
        return _gguf_start(start) or (_gguf_fault(path, size) if thorough else None)
    return _safetensors_fault(path, size) if path.suffix == WEIGHTS else None


def digest(path: Path, hasher: Any, each_block: Callable[[], None]) -> str:
    """Feed a file to a hashlib object, 1 MiB at a time; returns the hex digest so far."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            each_block()
            hasher.update(block)
    return str(hasher.hexdigest())


def _folder(folder: Path) -> list[Path]:
    """The files of a folder that must be whole: its weights and configuration.

    Raises ModelUnavailable when there are no weights.
    """
    weights = {path.name for suffix in _WEIGHTS for path in folder.glob(f"*{suffix}")}
    indexed = _indexed(folder / INDEX)
    # An index may be left of other weights that these were made of: it counts when any fit.
    if indexed & weights:
        weights |= indexed
    weights.update(missing_parts(weights))
    if not weights:
        raise ModelUnavailable(f"the model folder {folder.name} has no weights in it")
    beside = [name for name in _BESIDE if (folder / name).exists()]
    return [folder / name for name in (*beside, *sorted(weights))]


def _indexed(index: Path) -> set[str]:
    """The files that an index names, none without one; ModelUnavailable when it is damaged."""
    try:
        return {Path(name).name for name in json.loads(index.read_bytes())["weight_map"].values()}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelUnavailable(f"the model file {INDEX} is damaged") from None


def _gguf_start(start: bytes) -> str | None:
    """Look at the magic, the version and the counts."""
    if not start.startswith(b"GGUF"):
        return "is not a GGUF file"
    if len(start) < _START:
        return "is cut short"
    version, tensors, pairs = struct.unpack_from("<IQQ", start, 4)
    if version not in {2, 3} or tensors > _MAX_COUNT or pairs > _MAX_COUNT:
        return "has a damaged header or a GGUF version other than 2 and 3"
    return None


def _gguf_fault(path: Path, size: int) -> str | None:
    """Walk the header and see that the last tensor ends within the file."""
    import mmap  # noqa: PLC0415 - a local model in the image is started without it

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            end = _gguf_end(_Reader(data))
        except (struct.error, IndexError):
            return "is cut short"
        except ValueError:
            return "has a damaged header"
    return None if end <= size else f"is cut short: {size} of at least {end} bytes are there"


class _Reader:
    """Reads little-endian values from bytes, from a moving offset; struct.error at the end."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.at = 24

    def number(self, form: str) -> int:
        """One unsigned number: I of 4 bytes, Q of 8."""
        value: int = struct.unpack_from(f"<{form}", self.data, self.at)[0]
        self.at += 4 if form == "I" else 8
        return value

    def text(self) -> bytes:
        """A string with its length before it."""
        length = self.number("Q")
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise IndexError(self.at)
        return bytes(self.data[start : self.at])

    def skip_texts(self, count: int) -> None:
        """Go past many strings; this loop is nearly all of a check's time."""
        at, data, length = self.at, self.data, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + length(data, at)[0]
        self.at = at

    def skip_value(self, kind: int) -> None:
        """Go past one value of metadata."""
        if kind in _SCALARS:
            self.at += _SCALARS[kind]
        elif kind == _STRING:
            self.skip_texts(1)
        elif kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner == _STRING:
                self.skip_texts(count)
            elif inner in _SCALARS:
                self.at += _SCALARS[inner] * count
            else:
                raise ValueError(inner)
        else:
            raise ValueError(kind)


def _gguf_end(reader: _Reader) -> int:
    """Return the least size in bytes that the file must have."""
    tensors, pairs = struct.unpack_from("<QQ", reader.data, 8)
    alignment = 32
    for _ in range(pairs):
        key, kind, start = reader.text(), reader.number("I"), reader.at
        reader.skip_value(kind)
        if key == b"general.alignment":
            alignment = struct.unpack_from("<I", reader.data, start)[0]
    end = max((_tensor_end(reader) for _ in range(tensors)), default=0)
    if alignment == 0:
        raise ValueError(alignment)
    start = -(-reader.at // alignment) * alignment
    return start + end if tensors else reader.at


def _tensor_end(reader: _Reader) -> int:
    """Read one tensor's description; where its data ends, of an unknown type where it begins."""
    reader.text()
    dimensions = reader.number("I")
    if dimensions > 8:
        raise ValueError(dimensions)
    values = 1
    for _ in range(dimensions):
        values *= reader.number("Q")
    kind, offset = reader.number("I"), reader.number("Q")
    per_block, block_bytes = _TENSORS.get(kind, (1, 0))
    return offset + values // per_block * block_bytes


def _safetensors_fault(path: Path, size: int) -> str | None:
    """Read the JSON header; the last tensor must end exactly at the end of the file."""
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(_MAX_JSON, size - 8):
            return "is cut short or not a safetensors file"
        try:
            header = json.loads(file.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "has a damaged header"
    return None if end == size else f"is damaged: it has {size} bytes and its header says {end}"
