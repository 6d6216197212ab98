"""What a caller may set of a load, and what an image is made of: no way in, and no secret."""

import re
from pathlib import Path
from typing import Any

import pytest

from worker.engines import textgen_load
from worker.engines.classic_model import KEYS, TRUST, load_args
from worker.errors import InvalidJob

ROOT = Path(__file__).parent.parent
BAD_TEXTS = (
    "x; touch /tmp/owned",
    "$(touch owned)",
    "`touch owned`",
    "x | sh",
    "x && sh",
    "x\nsh",
    "x > file",
    "/etc/passwd",
    "~/x",
    "../x",
    "x/../../y",
    "C:\\x",
    "\\\\host\\share",
)
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("key", sorted(KEYS))
def test_no_arg_of_a_classic_load_takes_a_path_or_a_shells_characters(key: str, text: str) -> None:
    with pytest.raises(InvalidJob, match=key):
        load_args({key: text}, any_key=False, trust_remote_code=False)


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("key", ["mmproj", "model_draft", "tensor_split", "loader", "n_ctx"])
def test_no_arg_of_a_load_takes_a_path_or_a_shells_characters(key: str, text: str) -> None:
    with pytest.raises(InvalidJob, match="plain name"):
        textgen_load.check({key: text})


@pytest.mark.parametrize("value", ["org/model-Q4_K_M.gguf", "60,40", "CUDA0,CUDA1", 4, True, None])
def test_an_arg_of_a_load_takes_names_and_numbers(value: Any) -> None:
    textgen_load.check({"model_draft": value})


@pytest.mark.parametrize("key", [TRUST, "extra_flags", "model_dir", "api_key", "listen", "share"])
def test_what_is_no_option_of_a_loader_is_refused_by_all_engines(key: str) -> None:
    with pytest.raises(InvalidJob, match=key):
        load_args({key: True}, any_key=False, trust_remote_code=False)
    with pytest.raises(InvalidJob, match=key):
        textgen_load.check({key: True})


def test_an_image_is_made_without_secrets_in_arguments_or_variables() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(("ARG ", "ENV "))]

    assert ([], True) == ([line for line in lines if _SECRET_NAME.search(line)], bool(lines))


def test_a_secret_of_a_build_is_only_mounted() -> None:
    text = (ROOT / "Dockerfile").read_text()

    named = [line for line in text.splitlines() if "HF_TOKEN" in line]
    assert all("--mount=type=secret" in line or "/run/secrets/HF_TOKEN" in line for line in named)
    assert named


def test_the_builder_gets_no_file_that_could_hold_a_secret() -> None:
    first, *allowed = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert "*" == first
    assert [] == [line for line in allowed if re.search(r"\.env|\.git|\.netrc|\.ssh", line)]
