from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.contract.llama_cpp import WHOLE_CONTEXT
from worker.contract.openai_textgen import to_textgen, unsupported, unsupported_reasons
from worker.contract.parameters import TABLE, parse_parameters
from worker.engines.backend import Completion

LOADERS = ("llama.cpp", "Transformers")
PARAM_MAP = json.loads((Path(__file__).parent / "param_map.json").read_text(encoding="utf-8"))


def body(loader: str = "llama.cpp", tokens: int = 5, **parameters: Any) -> dict[str, Any]:
    completion = Completion([7], tokens, parse_parameters(parameters), ["", "END"])
    return to_textgen(completion, prompt="Hi", loader=loader)


@pytest.mark.parametrize("loader", LOADERS)
def test_every_parameter_is_sent_or_known_to_be_unsupported(loader: str) -> None:
    names = {
        entry["legacy"]: entry["modern"]
        for entry in PARAM_MAP["parameters"]
        if entry["legacy"] in TABLE
    }
    missing = {name for name, modern in names.items() if modern not in body(loader)}
    assert (set(TABLE), set()) == (set(names), missing - unsupported_reasons(loader).keys())


def test_a_default_job_has_the_blocking_apis_defaults() -> None:
    expected = {
        "prompt": "Hi",
        "max_tokens": 5,
        "stop": ["END"],
        "stream": True,
        "do_sample": True,
        "temperature": 0.5,
        "temperature_last": False,
        "top_p": 1.0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "tfs": 1.0,
        "top_a": 0.0,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty_range": WHOLE_CONTEXT,
        "encoder_repetition_penalty": 1.0,
        "top_k": 0,
        "no_repeat_ngram_size": 0,
        "mirostat_mode": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "grammar_string": "",
        "guidance_scale": 1.0,
        "negative_prompt": "",
        "seed": -1,
        "add_bos_token": True,
        "truncation_length": 0,
        "auto_max_new_tokens": False,
        "max_tokens_second": 0,
        "custom_token_bans": "",
        "ban_eos_token": False,
        "skip_special_tokens": True,
    }
    assert expected == body()


def test_the_whole_context_is_0_for_transformers() -> None:
    ranges = [body("Transformers", repetition_penalty_range=n) for n in (0, -1, 64)]
    assert [0, 0, 64] == [sent["repetition_penalty_range"] for sent in ranges]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("parameters", [{"do_sample": False}, {"temperature": 0}])
def test_a_greedy_job_has_temperature_0(loader: str, parameters: dict[str, Any]) -> None:
    sent = body(loader, **parameters, mirostat_mode=2)
    assert (False, 0.0, 0) == (sent["do_sample"], sent["temperature"], sent["mirostat_mode"])


@pytest.mark.parametrize(("loader", "seed"), [("llama.cpp", 1), ("Transformers", 2**32)])
def test_a_large_seed_is_cut_only_where_it_must(loader: str, seed: int) -> None:
    assert seed == body(loader, seed=2**32)["seed"]


def test_zero_tokens_yield_one() -> None:
    assert 1 == body(tokens=0)["max_tokens"]


def test_token_bans_are_sent_as_one_string() -> None:
    assert "7,8" == body(custom_token_bans="7, 8")["custom_token_bans"]


@pytest.mark.parametrize(
    ("loader", "expected"),
    [("llama.cpp", ["tfs", "num_beams"]), ("Transformers", ["num_beams"])],
)
def test_unsupported_depends_on_the_loader(loader: str, expected: list[str]) -> None:
    parameters = parse_parameters({"tfs": 0.9, "num_beams": 2, "top_k": 4})
    assert expected == unsupported(parameters, loader)
