"""LoRAs for the bundled model, made of random numbers: whatever they say, they say otherwise."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

# The model's sizes, and the layers that are changed.
_HIDDEN, _INNER = 576, 1536
_LAYERS = (5, 15, 25)
_HALF, _STRING, _FLOAT = 1, 8, 6
_ALIGNMENT = 32


def write_gguf(path: Path, *, seed: int) -> Path:
    """A LoRA of rank 1 for llama.cpp (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""
    infos, data, count = b"", b"", 0
    for layer, part, (rows, columns), values in _tensors(seed):
        name = f"blk.{layer}.ffn_down.weight.lora_{part}"
        infos += _text(name) + struct.pack("<IQQIQ", 2, columns, rows, _HALF, len(data))
        data += values + bytes(-len(values) % _ALIGNMENT)
        count += 1
    texts = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, count, len(texts) + 1)
    for key, value in texts.items():
        head += _text(key) + struct.pack("<I", _STRING) + _text(value)
    head += _text("adapter.lora.alpha") + struct.pack("<If", _FLOAT, 1.0) + infos
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
    return path


def write_peft(folder: Path, *, seed: int) -> Path:
    """The same LoRA for PEFT: https://huggingface.co/docs/peft/developer_guides/checkpoint."""
    header, data = {}, b""
    for layer, part, shape, values in _tensors(seed):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_{part.upper()}.weight"
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": offsets}
        data += values
    text = json.dumps(header).encode()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["down_proj"],
        "layers_to_transform": _LAYERS,
        "layers_pattern": "layers",
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    file = folder / "adapter_model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def _tensors(seed: int) -> Iterator[tuple[int, str, tuple[int, int], bytes]]:
    """Layer, a or b, rows and columns, and the numbers."""
    numbers = random.Random(seed)  # noqa: S311 - nothing secret
    for layer in _LAYERS:
        for part, shape in (("a", (1, _INNER)), ("b", (_HIDDEN, 1))):
            count = shape[0] * shape[1]
            values = (numbers.uniform(-1, 1) for _ in range(count))
            yield layer, part, shape, struct.pack(f"<{count}e", *values)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data
