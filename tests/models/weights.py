"""Tiny model files with right headers."""

from __future__ import annotations

import json
import struct


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(values: int = 1024, *, words: int = 3, kind: int = 0, bytes_each: int = 4) -> bytes:
    """A GGUF file of one tensor, with a vocabulary of so many words."""
    vocabulary = b"".join(_text(f"word{n}") for n in range(words))
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    head += _text("general.alignment") + struct.pack("<II", 4, 64)
    head += _text("general.name") + struct.pack("<I", 8) + _text("tiny")
    head += _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, words) + vocabulary
    head += _text("token_embd.weight") + struct.pack("<IQIQ", 1, values, kind, 0)
    head += bytes(-len(head) % 64)
    size = values * bytes_each
    return head + (bytes(range(251)) * (size // 251 + 1))[:size]


def safetensors(size: int = 64) -> bytes:
    """A safetensors file of one tensor of so many bytes."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)
