"""A hub with a model, and a machine with a volume."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.models.hub_server import TOKEN, FakeHub, serve
from tests.models.times import LIMITS
from tests.models.weights import gguf
from worker.model_fetch import Limits, obtain
from worker.model_hub import Hub
from worker.model_places import Places, places
from worker.model_source import Repository, Source

MODEL = gguf(8192)
# The library gives what arrives in blocks of 10 MiB; a part is so many blocks.
BLOCK = 10 << 20
LARGE = gguf(3 * BLOCK // 8)
LARGE_FILE = "large-Q4_K_M.gguf"


@dataclass
class Machine:
    """Folders of a worker, and what it logged."""

    root: Path
    hub: FakeHub
    lines: list[str] = field(default_factory=list)

    @property
    def places(self) -> Places:
        return places(
            models_dir=None,
            baked=self.root / "baked",
            volume=self.root / "volume",
            local=self.root / "local",
        )

    @property
    def repository(self) -> Path:
        """Where downloads of org/tiny are kept."""
        return self.root / "volume" / "models" / "models--org--tiny"

    def obtain(
        self,
        source: Source,
        *,
        token: str = TOKEN,
        offline: bool = False,
        cancel: threading.Event | None = None,
        limits: Limits = LIMITS,
    ) -> Path:
        hub = Hub(token=token, endpoint=self.hub.url, offline=offline)
        return obtain(
            source, places=self.places, hub=hub, log=self.lines.append, cancel=cancel, limits=limits
        )

    def parts(self) -> list[Path]:
        return sorted(self.root.rglob("*.part"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve(FakeHub()) as hub:
        hub.repositories["org/tiny"] = {
            "README.md": b"text",
            "tiny-Q4_K_M.gguf": MODEL,
            "tiny-Q8_0.gguf": gguf(4096),
            "mmproj-F16.gguf": gguf(512),
        }
        hub.repositories["org/large"] = {LARGE_FILE: LARGE}
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: FakeHub) -> Machine:
    (tmp_path / "volume").mkdir()
    return Machine(tmp_path, hub)


@pytest.fixture
def large() -> Repository:
    return Repository("org/large")


@pytest.fixture
def tiny() -> Repository:
    return Repository("org/tiny")
