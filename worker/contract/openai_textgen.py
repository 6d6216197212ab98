"""The blocking API's parameters in the words of today's textgen (v4.9), POST /v1/completions.

Its defaults differ from the blocking API's, so every parameter is sent. Facts from
https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/api/typing.py,
modules/llama_cpp_server.py, modules/sampler_hijack.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.contract import llama_cpp
from worker.contract.parameters import Parameters, changed
from worker.engines.backend import Completion

LLAMA_CPP_LOADER = "llama.cpp"

UNSUPPORTED: Mapping[str, str] = {
    "min_length": "textgen has no shortest answer any more",
    "num_beams": "textgen has no beam search any more",
    "length_penalty": "textgen has no beam search any more",
    "early_stopping": "textgen has no beam search any more",
    "penalty_alpha": "its transformers has no contrastive search any more",
}

UNSUPPORTED_LLAMA_CPP: Mapping[str, str] = {
    name: reason for name, reason in llama_cpp.UNSUPPORTED.items() if name != "max_tokens_second"
}

_SAME = (
    "max_tokens_second",
    "temperature_last",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "tfs",
    "top_a",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "encoder_repetition_penalty",
    "top_k",
    "no_repeat_ngram_size",
    "mirostat_tau",
    "mirostat_eta",
    "grammar_string",
    "guidance_scale",
    "negative_prompt",
    "add_bos_token",
    "ban_eos_token",
    "skip_special_tokens",
)


def unsupported_reasons(loader: str) -> Mapping[str, str]:
    """Tell what textgen can't follow with this loader, and why."""
    return UNSUPPORTED_LLAMA_CPP if loader == LLAMA_CPP_LOADER else UNSUPPORTED


def unsupported(parameters: Parameters, loader: str) -> list[str]:
    """Name the parameters that the caller set and textgen can't follow with this loader."""
    return changed(parameters, unsupported_reasons(loader))


def to_textgen(completion: Completion, *, prompt: str, loader: str) -> dict[str, Any]:
    """Make the body of POST /v1/completions for one generation, streamed.

    prompt: the completion's prompt as text (this API streams no token ids). truncation_length 0
    is the model's own: the prompt was made to fit before.
    """
    parameters = completion.parameters
    greedy = llama_cpp.is_greedy(parameters)
    return {
        **{name: getattr(parameters, name) for name in _SAME},
        "prompt": prompt,
        "max_tokens": max(1, completion.max_tokens),
        "stop": [string for string in completion.stop if string],
        "stream": True,
        "do_sample": not greedy,
        "temperature": 0.0 if greedy else parameters.temperature,
        "mirostat_mode": 0 if greedy else parameters.mirostat_mode,
        "auto_max_new_tokens": False,
        "truncation_length": 0,
        "custom_token_bans": ",".join(map(str, parameters.custom_token_bans)),
        **_by_loader(parameters, loader),
    }


def _by_loader(parameters: Parameters, loader: str) -> dict[str, Any]:
    """Set where the loaders differ: 0 tokens back is the whole context on Transformers only."""
    if loader == LLAMA_CPP_LOADER:
        return {
            "repetition_penalty_range": llama_cpp.repeat_last_n(parameters),
            "seed": llama_cpp.seed_32_bits(parameters),
        }
    return {
        "repetition_penalty_range": max(0, parameters.repetition_penalty_range),
        "seed": parameters.seed,
    }
