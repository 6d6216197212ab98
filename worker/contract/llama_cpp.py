"""The blocking API's parameters in the words of llama.cpp's POST /completion.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md#post-completion
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from worker.contract.parameters import Parameters, changed
from worker.engines.backend import Completion
from worker.errors import InvalidJob

# Longer than any context. llama.cpp's own word for "the whole context", -1, is refused over HTTP,
# and it reserves four bytes a token, so what the caller asks for must not go through unbounded.
WHOLE_CONTEXT = 2**20
_RANDOM_SEED = 2**32 - 1

UNSUPPORTED: Mapping[str, str] = {
    "max_tokens_second": "the answer comes as fast as it is generated",
    "epsilon_cutoff": "llama.cpp has no epsilon sampling",
    "eta_cutoff": "llama.cpp has no eta sampling",
    "tfs": "llama.cpp has no tail free sampling",
    "top_a": "llama.cpp has no top-a sampling",
    "encoder_repetition_penalty": "llama.cpp has no penalty for what is not in the prompt",
    "min_length": "llama.cpp has no shortest answer",
    "no_repeat_ngram_size": "llama.cpp can't ban repeated groups of tokens",
    "num_beams": "llama.cpp's server has no beam search",
    "length_penalty": "llama.cpp's server has no beam search",
    "early_stopping": "llama.cpp's server has no beam search",
    "penalty_alpha": "llama.cpp has no contrastive search",
    "guidance_scale": "llama.cpp's server has no guidance",
    "negative_prompt": "llama.cpp's server has no guidance",
    "skip_special_tokens": "special tokens are always left out",
}


def unsupported(parameters: Parameters) -> list[str]:
    """Name the parameters that the caller set and llama.cpp can't follow."""
    return changed(parameters, UNSUPPORTED)


def to_llama_cpp(completion: Completion) -> dict[str, Any]:
    """Make the body of POST /completion for one generation, streamed."""
    parameters = completion.parameters
    return {
        "prompt": completion.prompt if isinstance(completion.prompt, str) else [*completion.prompt],
        "n_predict": max(1, completion.max_tokens),
        "stream": True,
        "cache_prompt": True,
        "seed": seed_32_bits(parameters),
        "ignore_eos": parameters.ban_eos_token,
        "logit_bias": [[token, False] for token in parameters.custom_token_bans],
        "grammar": parameters.grammar_string,
        "repeat_penalty": parameters.repetition_penalty,
        "repeat_last_n": repeat_last_n(parameters),
        "presence_penalty": parameters.presence_penalty,
        "frequency_penalty": parameters.frequency_penalty,
        **_sampling(parameters),
    }


def repeat_last_n(parameters: Parameters) -> int:
    """Count the tokens that penalties look back on; the blocking API's 0 is the whole context."""
    wanted = parameters.repetition_penalty_range
    return wanted if 0 < wanted < WHOLE_CONTEXT else WHOLE_CONTEXT


def seed_32_bits(parameters: Parameters) -> int:
    """Map the seed: -1 stays random, any other becomes one of llama.cpp's that is not."""
    return -1 if parameters.seed == -1 else parameters.seed % _RANDOM_SEED


def check_native(body: Mapping[str, Any]) -> None:
    """Refuse what harms the engine, or other jobs, when it comes in its own dialect.

    llama.cpp keeps that many tokens a request (2**31 made it take 8.5 GB), and takes an empty
    stopping string for one that has come. A request without `lora` may go on from the cache of one
    that had chosen its LoRAs (xllamacpp 2026.10.11549). It fetches media from any address.
    Raises InvalidJob.
    """
    if body.get("lora") is not None:
        raise InvalidJob(
            "lora can't be set for one request; load LoRAs with /v1/internal/lora/load"
        )
    for name in ("repeat_last_n", "dry_penalty_last_n"):
        value = body.get(name)
        if isinstance(value, (int, float)) and value > WHOLE_CONTEXT:
            raise InvalidJob(f"{name} is {value}; it must be {WHOLE_CONTEXT} at most")
    stop = body.get("stop")
    if stop == "" or (isinstance(stop, list) and "" in stop):
        raise InvalidJob("stop holds an empty string; leave it out")
    if any(not url.startswith("data:") for url in _media(body.get("messages"), body.get("input"))):
        raise InvalidJob("a URL of an image or other media must be a data: URL with its bytes")


def _media(*parts: Any) -> Iterator[str]:
    """The addresses of images, sounds and videos, in the shapes of all its chat routes.

    llama.cpp with a projector would fetch them, from within the platform's network.
    """
    left = list(parts)
    while left:
        part = left.pop()
        if isinstance(part, list):
            left.extend(part)
        elif isinstance(part, dict):
            left.extend(part.values())
            named = [part.get(name) for name in ("image_url", "video_url", "audio_url")]
            urls = [url.get("url") if isinstance(url, dict) else url for url in named]
            urls.append(part.get("url") if part.get("type") == "url" else None)
            yield from (url for url in urls if isinstance(url, str))


def is_greedy(parameters: Parameters) -> bool:
    """Whether each token is the likeliest one; the penalties still hold."""
    return not parameters.do_sample or parameters.temperature == 0


def _sampling(parameters: Parameters) -> dict[str, Any]:
    """Set the samplers, in the blocking API's order: temperature comes first, unless asked last."""
    if is_greedy(parameters):
        return {"temperature": 0.0, "mirostat": 0, "samplers": ["penalties", "temperature"]}
    cuts = ["top_k", "top_p", "typ_p", "min_p"]
    order = [*cuts, "temperature"] if parameters.temperature_last else ["temperature", *cuts]
    return {
        "temperature": parameters.temperature,
        "top_k": parameters.top_k,
        "top_p": parameters.top_p,
        "typical_p": parameters.typical_p,
        "min_p": parameters.min_p,
        "mirostat": parameters.mirostat_mode,
        "mirostat_tau": parameters.mirostat_tau,
        "mirostat_eta": parameters.mirostat_eta,
        "samplers": ["penalties", *order],
    }
