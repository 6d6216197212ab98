from __future__ import annotations

from typing import Any

import pytest

from worker.contract.llama_cpp import (
    UNSUPPORTED,
    WHOLE_CONTEXT,
    check_native,
    to_llama_cpp,
)
from worker.contract.parameters import TABLE, parse_parameters
from worker.engines.backend import Completion
from worker.errors import InvalidJob

SENT = {
    "do_sample": "temperature",
    "temperature": "temperature",
    "temperature_last": "samplers",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty_range": "repeat_last_n",
    "top_k": "top_k",
    "mirostat_mode": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "grammar_string": "grammar",
    "seed": "seed",
    "custom_token_bans": "logit_bias",
    "ban_eos_token": "ignore_eos",
}
OF_THE_COMPLETION = {
    "max_new_tokens",
    "auto_max_new_tokens",
    "truncation_length",
    "stopping_strings",
    "add_bos_token",
}


def body(prompt: str = "Hi", tokens: int = 5, **parameters: Any) -> dict[str, Any]:
    return to_llama_cpp(Completion(prompt, tokens, parse_parameters(parameters), ["END"]))


def test_every_parameter_is_sent_or_known_to_be_unsupported() -> None:
    assert set(TABLE) == SENT.keys() | UNSUPPORTED.keys() | OF_THE_COMPLETION


def test_a_default_job_has_the_blocking_apis_defaults() -> None:
    expected = {
        "prompt": "Hi",
        "n_predict": 5,
        "stream": True,
        "cache_prompt": True,
        "seed": -1,
        "ignore_eos": False,
        "logit_bias": [],
        "grammar": "",
        "repeat_penalty": 1.1,
        "repeat_last_n": WHOLE_CONTEXT,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
        "typical_p": 1.0,
        "min_p": 0.0,
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "samplers": ["penalties", "temperature", "top_k", "top_p", "typ_p", "min_p"],
    }
    assert expected == body()


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("temperature", 0.9, 0.9),
        ("top_p", 0.9, 0.9),
        ("min_p", 0.1, 0.1),
        ("typical", 0.8, 0.8),
        ("rep_pen", 1.3, 1.3),
        ("presence_penalty", 0.5, 0.5),
        ("frequency_penalty", 0.4, 0.4),
        ("repetition_penalty_range", 64, 64),
        ("repetition_penalty_range", -1, WHOLE_CONTEXT),
        ("repetition_penalty_range", 2**31 - 1, WHOLE_CONTEXT),
        ("top_k", 40, 40),
        ("mirostat_mode", 2, 2),
        ("mirostat_tau", 8, 8.0),
        ("mirostat_eta", 0.2, 0.2),
        ("grammar_string", 'root ::= "a"', 'root ::= "a"'),
        ("seed", 42, 42),
        ("seed", 2**32 - 1, 0),
        ("seed", -5, 2**32 - 6),
        ("custom_token_bans", "7,8", [[7, False], [8, False]]),
        ("ban_eos_token", True, True),
        (
            "temperature_last",
            True,
            ["penalties", "top_k", "top_p", "typ_p", "min_p", "temperature"],
        ),
    ],
)
def test_a_parameter_is_sent_in_llama_cpps_words(name: str, value: Any, sent: Any) -> None:
    own = {"typical": "typical_p", "rep_pen": "repetition_penalty"}.get(name, name)
    assert sent == body(**{name: value})[SENT[own]]


@pytest.mark.parametrize("parameters", [{"do_sample": False}, {"temperature": 0}])
def test_a_greedy_job_has_only_the_penalties(parameters: dict[str, Any]) -> None:
    sent = body(**parameters, mirostat_mode=2, typical_p=0.2, repetition_penalty=1.2)
    chosen = {name: sent.get(name) for name in ("temperature", "mirostat", "samplers", "typical_p")}
    assert {
        "temperature": 0.0,
        "mirostat": 0,
        "samplers": ["penalties", "temperature"],
        "typical_p": None,
    } == chosen
    assert 1.2 == sent["repeat_penalty"]


def test_zero_tokens_yield_one() -> None:
    assert 1 == body(tokens=0)["n_predict"]


def test_a_cut_prompt_is_sent_as_token_ids() -> None:
    completion = Completion((1, 2, 3), 5, parse_parameters({}), ())
    assert [1, 2, 3] == to_llama_cpp(completion)["prompt"]


def test_stopping_strings_are_left_to_who_reads_the_stream() -> None:
    completion = Completion("", 5, parse_parameters({}), ["a"])

    assert "stop" not in to_llama_cpp(completion)


@pytest.mark.parametrize(
    "body",
    [{"repeat_last_n": 2**31}, {"dry_penalty_last_n": 1e9}, {"stop": ""}, {"stop": ["a", ""]}],
)
def test_what_takes_the_engine_down_is_refused_in_its_own_dialect(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match=next(iter(body))):
        check_native(body)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"image_url": {"url": "http://169.254.169.254/"}}]}]},
        {"messages": [{"content": [{"video_url": "https://host/a"}]}]},
        {"messages": [{"content": [{"source": {"type": "url", "url": "file:///etc/passwd"}}]}]},
        {"input": [{"content": [{"type": "input_image", "image_url": "http://host/a"}]}]},
    ],
)
def test_the_engine_is_never_sent_to_fetch_something(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="must be a data: URL"):
        check_native(body)


def test_everything_else_passes_untouched() -> None:
    check_native({"repeat_last_n": -1, "stop": ["a"], "anything": {}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    check_native({"messages": [{"content": [image, {"text": "http://host/a"}]}], "input": "http:"})
