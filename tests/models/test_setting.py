"""MODEL as an operator writes it, down to a worker that answers with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.models.conftest import MODEL
from tests.models.hub_server import TOKEN, FakeHub, Fault
from tests.ports import free_port
from worker.model_setting import with_local_models
from worker.models import BUNDLED_FILE, bundled_path
from worker.settings import Settings

ROOT = Path(__file__).parent.parent.parent


def test_a_name_and_a_path_stay_what_they_are() -> None:
    for model in ("", "some-name", "/models/a.gguf", "models/a.gguf"):
        settings = Settings(model=model)

        assert settings == with_local_models(settings, print)


def test_a_name_in_any_models_folder_becomes_its_path(tmp_path: Path) -> None:
    for folder, name in (("image", "a"), ("volume/models", "b")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.gguf").write_bytes(MODEL)
    settings = Settings(model_image_dir=tmp_path / "image", volume=tmp_path / "volume")

    found = [with_local_models(replace(settings, model=name), print).model for name in "abc"]

    assert [str(tmp_path / "image/a.gguf"), str(tmp_path / "volume/models/b.gguf"), "c"] == found


def test_a_repository_becomes_the_path_of_its_file(tmp_path: Path, hub: FakeHub) -> None:
    settings = Settings(
        model="org/tiny:Q4_K_M",
        hf_endpoint=hub.url,
        volume=tmp_path / "none",
        model_download_dir=tmp_path / "here",
    )

    path = Path(with_local_models(settings, print).model)

    assert (MODEL, True) == (path.read_bytes(), path.is_relative_to(tmp_path / "here"))


def test_a_worker_downloads_its_model_and_answers_with_it(tmp_path: Path, hub: FakeHub) -> None:
    bundled = bundled_path()
    assert bundled is not None
    hub.repositories["org/smol"] = {BUNDLED_FILE: bundled.read_bytes()}
    environment = {
        "PATH": os.environ["PATH"],
        "MODEL": "org/smol:Q4_1",
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "VOLUME": str(tmp_path / "none"),
        "MODEL_DOWNLOAD_DIR": str(tmp_path),
        "ENGINE_PORT": str(free_port()),
    }
    job = {"input": {"api": {"method": "GET", "endpoint": "/model"}}}
    done = subprocess.run(
        [sys.executable, "handler.py", "--test_input", json.dumps(job)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert (0, {"result": BUNDLED_FILE.removesuffix(".gguf")}) == (
        done.returncode,
        json.loads(done.stdout)["output"],
    )
    assert TOKEN not in done.stderr


def test_a_model_that_can_not_be_had_is_one_sentence_and_exit_1(
    tmp_path: Path, hub: FakeHub
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "MODEL": "org/unknown:Q4_1",
        "HF_ENDPOINT": hub.url,
        "VOLUME": str(tmp_path / "none"),
        "MODEL_DOWNLOAD_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "handler.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert "org/unknown" in done.stderr.splitlines()[-1]


def test_sigterm_ends_a_download_at_once_and_lets_its_lock_go(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults["tiny-Q4_K_M.gguf"].append(Fault("stall", 5000))
    environment = {
        "PATH": os.environ["PATH"],
        "MODEL": "org/tiny:Q4_K_M",
        "HF_ENDPOINT": hub.url,
        "VOLUME": str(tmp_path / "none"),
        "MODEL_DOWNLOAD_DIR": str(tmp_path),
    }
    with subprocess.Popen([sys.executable, "handler.py"], cwd=ROOT, env=environment) as worker:
        assert hub.stalled.wait(20)
        worker.send_signal(signal.SIGTERM)

        assert 128 + signal.SIGTERM == worker.wait(5)
    assert [] == list(tmp_path.rglob(".lock"))
