"""What the embedded engine's child is told, from the settings and from what a job asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lora import write_gguf
from worker.engines.embedded_launch import EmbeddedLaunch
from worker.errors import UnknownRoute
from worker.models import Catalog
from worker.settings import Settings


@pytest.fixture
def launch(tmp_path: Path) -> EmbeddedLaunch:
    """MODEL is a, with the LoRA one on it; b can be loaded too."""
    write_gguf(tmp_path / "one.gguf", seed=0)
    settings = Settings(lora=("one",), loras_dir=tmp_path, engine_context=512, engine_threads=3)
    return EmbeddedLaunch(settings, Catalog({"a": Path("a.gguf"), "b": Path("b.gguf")}, "a"))


def test_the_settings_loras_are_on_their_model_and_on_no_other(launch: EmbeddedLaunch) -> None:
    assert [("one",), ()] == [launch.load().loras, launch.load("b").loras]


def test_a_load_may_take_the_loras_off(launch: EmbeddedLaunch) -> None:
    assert () == launch.options(launch.load("a", loras=())).loras


def test_a_jobs_args_come_before_the_settings(launch: EmbeddedLaunch) -> None:
    usual = launch.options(launch.load("b"))
    asked = launch.options(launch.load("b", {"n_ctx": 1024, "threads": 1, "n_gpu_layers": 7}))

    assert (512, 3, 0) == (usual.context, usual.threads, usual.gpu_layers)
    assert (1024, 1, 7) == (asked.context, asked.threads, asked.gpu_layers)


@pytest.mark.parametrize(("model", "lora"), [("c", "one"), ("a", "two")])
def test_what_there_is_not_is_refused(launch: EmbeddedLaunch, model: str, lora: str) -> None:
    with pytest.raises(UnknownRoute, match="there are: "):
        launch.load(model, loras=[lora])
