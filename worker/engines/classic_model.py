"""The model on the classic: which one is loaded, loading another, and what is told of it.

The classic names a model that did not load, takes any key for `args` (also those that run a
model's own program), and says 200 to both. Facts from text-generation-webui@snapshot-2023-11-05:
extensions/api/blocking_api.py, modules/shared.py, modules/models.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

from worker.contract.fields import Number, Reader, Whole, flag, read
from worker.errors import InvalidJob

TRUST = "trust_remote_code"
LOADERS = (
    *("Transformers", "AutoGPTQ", "GPTQ-for-LLaMa", "llama.cpp", "llamacpp_HF", "RWKV"),
    *("ExLlama", "ExLlama_HF", "ExLlamav2", "ExLlamav2_HF", "ctransformers", "AutoAWQ"),
)
_SECRET = re.compile(
    r"(api|admin)_key|(api|hf|access)_token|auth|ssl_|password|secret", re.IGNORECASE
)


def _name(value: Any) -> str:
    """Read a plain name or number list: nothing that could be a path."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w .,:+-]{1,200}", value):
        raise ValueError("a plain text without slashes")
    if ".." in value:
        raise ValueError("a plain text without two dots")
    return value


def _strategy(value: Any) -> str:
    """Read RWKV's layers and formats, such as "cuda fp16 *10 -> cpu fp32"."""
    if not isinstance(value, str) or not re.fullmatch(r"(?:[\w :.,*+-]|(?<=-)>){1,200}", value):
        raise ValueError('a strategy such as "cuda fp16 *10 -> cpu fp32"')
    return value


def _names(value: Any) -> list[str]:
    """Read a list of plain names, or one of them."""
    return [_name(item) for item in (value if isinstance(value, list) else [value])]


def _loader(value: Any) -> str:
    """Read the name of a loader."""
    if value not in LOADERS:
        raise ValueError(f"one of {', '.join(LOADERS)}")
    return str(value)


def _dtype(value: Any) -> str:
    """Read a number format; the classic evaluates it."""
    if value not in ("bfloat16", "float16", "float32"):
        raise ValueError("bfloat16, float16 or float32")
    return str(value)


def _layers(value: Any) -> list[int]:
    """Read a list of whole numbers, or one."""
    return [Whole(0)(item) for item in (value if isinstance(value, list) else [value])]


_FLAGS = (
    *("cpu", "auto_devices", "disk", "load_in_8bit", "bf16", "no_cache", "xformers"),
    *("sdp_attention", "force_safetensors", "use_fast", "use_flash_attention_2", "load_in_4bit"),
    *("use_double_quant", "no_mul_mat_q", "no_mmap", "mlock", "numa", "cfg_cache"),
    *("no_flash_attn", "cache_8bit", "triton", "no_inject_fused_attention"),
    *("no_inject_fused_mlp", "no_use_cuda_fp16", "desc_act", "disable_exllama", "monkey_patch"),
    *("logits_all", "rwkv_cuda_on", "gptq_for_llama"),
)
_NUMBERS = (
    *("n_ctx", "threads", "threads_batch", "n_batch", "n_gpu_layers", "llama_cpp_seed"),
    *("max_seq_len", "wbits"),
)
# A key that may be set -> how it is read. Left out: whatever names a file or a folder.
KEYS: Mapping[str, Reader[Any]] = {
    **dict.fromkeys(_FLAGS, flag),
    **dict.fromkeys(_NUMBERS, Whole(0)),
    "alpha_value": Number(0),
    "cache_capacity": _name,
    "compress_pos_emb": Whole(1),
    "compute_dtype": _dtype,
    "cpu_memory": lambda value: _name(str(value)),
    "gpu_memory": lambda value: _names([str(item) for item in _listed(value)]),
    "gpu_split": _name,
    "groupsize": Whole(-1),
    "loader": _loader,
    "model_type": _name,
    "pre_layer": _layers,
    "quant_type": _name,
    "rope_freq_base": Number(0, 1e9),
    "rwkv_strategy": _strategy,
    "tensor_split": _name,
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def load_args(args: Mapping[str, Any], *, any_key: bool, trust_remote_code: bool) -> dict[str, Any]:
    """The args of a load that may be passed on; null sets the classic's own "not given".

    any_key: pass on what is not known, too (ENGINE_LOAD_ANY_ARGS). trust_remote_code has a switch
    of its own. Raises InvalidJob.
    """
    if args.get(TRUST) and not trust_remote_code:
        raise InvalidJob(
            "args.trust_remote_code is refused: a model could run any program; leave it out"
        )
    unknown = sorted(set(args) - set(KEYS) - {TRUST})
    if unknown and not any_key:
        raise InvalidJob(
            f"args can't set {', '.join(unknown)[:100]} on this worker; send what the model "
            "loaders take, such as loader, n_ctx or load_in_8bit"
        )
    return {
        key: value if value is None or key not in KEYS else read(f"args.{key}", value, KEYS[key])
        for key, value in args.items()
    }


def public_info(info: Any) -> Any:
    """The answer of action info without secrets and without absolute paths, else unchanged."""
    if isinstance(info, Mapping):
        return {
            key: None if value and _SECRET.search(str(key)) else public_info(value)
            for key, value in info.items()
        }
    if isinstance(info, list):
        return [public_info(value) for value in info]
    return _last_part(info) if isinstance(info, str) else info


def _last_part(value: str) -> str:
    """Of an absolute path the last part, of any other text all of it."""
    if "\n" in value or not (PurePath(value).is_absolute() or PureWindowsPath(value).drive):
        return value
    name = PureWindowsPath(value).name
    return f"{name}/" if value.endswith(("/", "\\")) else name
