"""What a checkout tells before it is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.engines import webui
from worker.engines.webui import Argument, Checkout, Generation
from worker.errors import SettingsError

SHARED = """
parser = argparse.ArgumentParser()
group = parser.add_argument_group('x')
group.add_argument('--ctx-size', '--n_ctx', type=int, default=0)
group.add_argument('--lora', nargs='+')
group.add_argument('--parallel', type=int)
group.add_argument('--extra-flags')
group.add_argument('--trust-remote-code', action='store_true')
group.add_argument('--listen', action='store_true')
group.add_argument('--do-sample', action=argparse.BooleanOptionalAction)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    for name, text in (("api/script.py", ""), ("shared.py", SHARED)):
        file = tmp_path / "modules" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return webui.open_checkout(tmp_path)


def check(checkout: Checkout, text: str, *, trust: bool = False) -> list[Argument]:
    return webui.check_args(checkout, webui.split_args(text), trust_remote_code=trust)


@pytest.mark.parametrize(
    ("mark", "generation"),
    [
        ("extensions/api/blocking_api.py", Generation.CLASSIC),
        ("extensions/openai/script.py", Generation.CURRENT),
        ("modules/api/script.py", Generation.CURRENT),
    ],
)
def test_a_checkouts_files_tell_its_generation(
    mark: str, generation: Generation, tmp_path: Path
) -> None:
    (tmp_path / mark).parent.mkdir(parents=True)
    (tmp_path / mark).touch()
    assert generation is webui.generation_of(tmp_path)


def test_a_folder_without_text_generation_webui_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WEBUI_DIR"):
        webui.open_checkout(tmp_path)


def test_flags_are_read_with_all_their_spellings(checkout: Checkout) -> None:
    assert "--ctx-size" == checkout.flags["--n_ctx"]
    assert checkout.knows("--no-do-sample")


def test_arguments_are_split_as_by_a_shell_and_spelled_canonically(checkout: Checkout) -> None:
    expected = [Argument("--ctx-size", ("4",)), Argument("--lora", ("a b", "c"))]
    assert expected == check(checkout, "--n_ctx=4 --lora 'a b' c")


def test_the_last_of_two_wins(checkout: Checkout) -> None:
    assert "8" == webui.last(check(checkout, "--n_ctx 4 --ctx-size 8"), "--ctx-size")


def test_a_value_that_looks_like_a_flag_stays_one_word(checkout: Checkout) -> None:
    arguments = check(checkout, "--extra-flags=--jinja")
    assert ["--extra-flags=--jinja"] == webui.command_words(arguments)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("--paralel 2", "nearest is --parallel"),
        ("--lis", "unknown"),
        ("--listen", "refused: the engine may be reached through the worker only"),
        ("--api-port 1", "ENGINE_PORT"),
        ("--trust-remote-code", "ENGINE_TRUST_REMOTE_CODE"),
        ("--extra-flags '--host 0.0.0.0'", "host or port"),
        ("cpu", "begin with a flag"),
        ("--lora 'a", "quote"),
    ],
)
def test_a_wrong_flag_is_told_before_the_start(checkout: Checkout, text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        check(checkout, text)


def test_remote_code_is_trusted_when_the_operator_says_so(checkout: Checkout) -> None:
    assert [Argument("--trust-remote-code")] == check(checkout, "--trust-remote-code", trust=True)


def test_the_child_sees_no_secret_and_no_setting_of_its_api() -> None:
    seen = webui.child_environment(
        {
            "PATH": "/bin",
            "CUDA_VISIBLE_DEVICES": "0",
            "HF_HOME": "/models",
            "HF_TOKEN": "canary",
            "RUNPOD_AI_API_KEY": "canary",
            "OPENEDAI_PORT": "1",
            "LLAMA_ARG_HOST": "0.0.0.0",
        }
    )
    assert {"PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME"} <= seen.keys()
    assert not {"HF_TOKEN", "RUNPOD_AI_API_KEY", "OPENEDAI_PORT", "LLAMA_ARG_HOST"} & seen.keys()
