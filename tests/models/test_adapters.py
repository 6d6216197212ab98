"""LORA and MODEL_MMPROJ, from the setting to what each engine is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_webui import make_checkout
from tests.lora import write_gguf, write_peft
from tests.models.hub_server import FakeHub
from tests.models.weights import gguf, safetensors
from tests.ports import free_port
from worker.engines import classic_launch, current_launch
from worker.engines.webui import open_checkout
from worker.errors import EngineStartFailed, SettingsError
from worker.model_setting import with_local_models
from worker.models import bundled_path
from worker.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PROMPT = {"prompt": "The capital of France is", "max_new_tokens": 8, "do_sample": False}
GENERATE = {"api": {"method": "POST", "endpoint": "/generate"}, "payload": PROMPT}
INFO = {"api": {"method": "POST", "endpoint": "/model"}, "payload": {"action": "info"}}


def run(job: dict[str, Any], **environ: str) -> subprocess.CompletedProcess[str]:
    """A whole worker on the embedded engine, for one job."""
    return subprocess.run(
        [sys.executable, "handler.py", "--test_input", json.dumps({"input": job})],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "ENGINE_PORT": str(free_port()), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def output(job: dict[str, Any], **environ: str) -> Any:
    done = run(job, **environ)
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)["output"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "webui")


def current(checkout: Path, **settings: Any) -> list[str]:
    """The command line of the current generation."""
    launch = current_launch.plan(Settings(**settings), open_checkout(checkout))
    return launch.argv(5000, checkout / "user_data")


def classic(folder: Path, **settings: Any) -> list[str]:
    """The command line of the classic one."""
    for name in ("extensions/api", "modules", "models/small"):
        (folder / name).mkdir(parents=True)
    (folder / "extensions/api/blocking_api.py").touch()
    (folder / "modules/shared.py").touch()
    (folder / "models/small/model.safetensors").write_bytes(safetensors())
    return classic_launch.plan(Settings(**settings), open_checkout(folder)).argv(1, 2, 3)


def after(words: list[str], flag: str) -> str:
    """The value of a flag, which is there once; one like a flag comes after a =."""
    values = [after for word, after in pairwise(words) if word == flag]
    values += [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    assert 1 == len(values)
    return values[0]


@pytest.fixture
def repositories(tmp_path: Path, hub: FakeHub) -> dict[str, str]:
    """A hub with LoRAs, and the settings with which a worker downloads from it."""
    gguf_file = write_gguf(tmp_path / "strong.gguf", seed=1)
    hub.repositories["org/gguf"] = {"strong.gguf": gguf_file.read_bytes()}
    peft = write_peft(tmp_path / "peft", seed=1)
    for name in ("org/v1.0", "org/two"):
        hub.repositories[name] = {path.name: path.read_bytes() for path in peft.iterdir()}
    return {
        "HF_ENDPOINT": hub.url,
        "VOLUME": str(tmp_path / "none"),
        "MODEL_DOWNLOAD_DIR": str(tmp_path / "models"),
    }


def test_a_lora_of_a_repository_changes_what_the_embedded_engine_says(
    repositories: dict[str, str],
) -> None:
    settings = {"LORA": "org/gguf", **repositories}

    assert ["strong"] == output(INFO, **settings)["result"]["lora_names"]
    assert output(GENERATE) != output(GENERATE, **settings)


def test_a_lora_that_is_none_is_told() -> None:
    done = run(INFO, LORA=str(bundled_path()))

    assert (1, "the engine ended: a LoRA is broken, or made for another model") == (
        done.returncode,
        done.stderr.splitlines()[-1].partition("start: ")[2],
    )


def test_half_a_lora_is_told(tmp_path: Path) -> None:
    half = write_gguf(tmp_path / "half.gguf", seed=1)
    half.write_bytes(half.read_bytes()[:-100])
    done = run(INFO, LORA=str(half))

    assert (1, True) == (
        done.returncode,
        done.stderr.splitlines()[-1].startswith("the model file half.gguf is cut short: "),
    )


def test_half_a_folder_is_told(checkout: Path, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", seed=1)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    with pytest.raises(EngineStartFailed, match=r"file adapter_model\.safetensors is damaged"):
        current(checkout, engine_loader="Transformers", lora=(str(adapter),))


def test_loras_of_repositories_are_in_one_folder_with_names_of_their_own(
    checkout: Path, repositories: dict[str, str], tmp_path: Path
) -> None:
    environ = {**repositories, "LORA": "org/v1.0, org/two", "ENGINE_LOADER": "Transformers"}
    settings = with_local_models(Settings.from_env(environ), print)
    launch = current_launch.plan(settings, open_checkout(checkout))
    words = launch.argv(5000, checkout / "user_data")

    assert str(tmp_path / "models" / "loras") == after(words, "--lora-dir")
    at = words.index("--lora")
    assert ["v1_0-aaaaaaa", "two-aaaaaaa"] == words[at + 1 : at + 3]


def test_the_classic_generation_gets_one_too(repositories: dict[str, str], tmp_path: Path) -> None:
    settings = with_local_models(Settings.from_env({**repositories, "LORA": "org/two"}), print)
    words = classic(tmp_path / "classic", lora=settings.lora)

    assert str(tmp_path / "models" / "loras") == after(words, "--lora-dir")
    assert "two-aaaaaaa" == after(words, "--lora")


def test_today_s_llama_cpp_gets_the_file(checkout: Path, repositories: dict[str, str]) -> None:
    settings = with_local_models(Settings.from_env({**repositories, "LORA": "org/gguf"}), print)

    words = current(checkout, lora=settings.lora)

    path = Path(repositories["MODEL_DOWNLOAD_DIR"]) / "models--org--gguf/snapshots" / ("a" * 40)
    assert f"--lora {path / 'strong.gguf'}" == after(words, "--extra-flags")


def test_a_name_stays_one(tmp_path: Path) -> None:
    """Even when a model has the same one: LoRAs are looked for in a folder of their own."""
    (tmp_path / "style").mkdir()
    settings = Settings(lora=("style",), model_image_dir=tmp_path, volume=tmp_path / "none")

    assert ("style",) == with_local_models(settings, print).lora


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a, b c", ("a", "b", "c")),
        ("'/x y/a.gguf'", ("/x y/a.gguf",)),
        ("https://h/a.gguf?x=1#sha256=0", ("https://h/a.gguf?x=1#sha256=0",)),
    ],
)
def test_loras_are_separated_by_commas_or_spaces(text: str, words: tuple[str, ...]) -> None:
    assert words == Settings.from_env({"LORA": text}).lora


def test_a_quote_without_its_end_is_told() -> None:
    with pytest.raises(SettingsError, match='LORA is "\'a"; it must be words; one has a quote'):
        Settings.from_env({"LORA": "'a"})


def test_a_projector_is_had_from_the_model_s_repository(tmp_path: Path, hub: FakeHub) -> None:
    settings = Settings(
        model="org/tiny:Q4_K_M",
        model_mmproj="*",
        hf_endpoint=hub.url,
        volume=tmp_path / "none",
        model_download_dir=tmp_path,
    )

    found = with_local_models(settings, print)

    names = [Path(path).name for path in (found.model, found.model_mmproj)]
    assert ["tiny-Q4_K_M.gguf", "mmproj-F16.gguf"] == names


def test_the_embedded_engine_is_given_the_projector_and_tells_when_it_is_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "mmproj.gguf").write_bytes(gguf())
    done = run(INFO, MODEL_MMPROJ=str(tmp_path / "mmproj.gguf"))

    text = "the engine ended: the file of MODEL_MMPROJ is none, or is not made for this model"
    assert (1, text) == (done.returncode, done.stderr.splitlines()[-1].partition("start: ")[2])


def test_today_s_llama_cpp_is_given_the_projector(checkout: Path, tmp_path: Path) -> None:
    mmproj = tmp_path / "mmproj.gguf"
    mmproj.write_bytes(gguf())

    assert str(mmproj) == after(current(checkout, model_mmproj=str(mmproj)), "--mmproj")


@pytest.mark.parametrize("name", ["/no/mmproj.gguf", "F16"])
def test_a_projector_that_is_not_there_is_told(name: str) -> None:
    done = run(INFO, MODEL_MMPROJ=name)

    assert (2, f"MODEL_MMPROJ is {name!r}; it must be a .gguf file that is there") == (
        done.returncode,
        done.stderr.splitlines()[-1],
    )


def test_a_projector_without_llama_cpp_is_refused(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Transformers takes none, only llama"):
        current(checkout, engine_loader="Transformers", model_mmproj="/a.gguf")
    with pytest.raises(SettingsError, match="the classic text-generation-webui takes none"):
        classic(tmp_path / "classic", model_mmproj="/a.gguf")
