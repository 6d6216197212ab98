"""The `args` of a load, as the blocking API takes them -> what today's textgen is told. Pure.

Keys from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/loaders.py
(list_model_elements), modules/api/models.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engines import classic_model
from worker.engines.current_launch import LLAMA_CPP, TRANSFORMERS, Launch
from worker.engines.webui import last
from worker.errors import InvalidJob, UnknownRoute

_KEYS = frozenset(
    (
        *("loader", "gpu_layers", "fit_target", "cpu_moe", "threads", "threads_batch"),
        *("batch_size", "ubatch_size", "ctx_size", "cache_type", "tensor_split", "split_mode"),
        *("streaming_llm", "no_kv_offload", "no_mmap", "mlock", "numa", "mmproj", "model_draft"),
        *("draft_max", "gpu_layers_draft", "device_draft", "spec_type", "spec_ngram_size_n"),
        *("spec_ngram_size_m", "spec_ngram_min_hits", "gpu_split", "cpu_memory"),
        *("compute_dtype", "quant_type", "load_in_8bit", "load_in_4bit", "attn_implementation"),
        *("cpu", "disk", "use_double_quant", "bf16", "no_use_fast", "cfg_cache", "enable_tp"),
        *("tp_backend",),
    )
)
# The blocking API's names for the same.
_OLD_NAMES = {"n_ctx": "ctx_size", "max_seq_len": "ctx_size", "n_gpu_layers": "gpu_layers"}
# A load takes these from the model's file, unless they are said again.
_KEPT = {"ctx_size": "--ctx-size", "gpu_layers": "--gpu-layers"}
# A path out of the models folder, or what a shell would take for more than text.
_TEMPLATE = ("instruction_template", "instruction_template_str")
_OUTSIDE = re.compile(r"^[/\\~]|\.\.|^[A-Za-z]:|[\x00-\x1f;&|`$<>*?!\"']")


@dataclass(frozen=True, slots=True)
class LoadedWith:
    """What a job loaded the model with, beside its name and its LoRAs.

    template: the fields `instruction_template` and `instruction_template_str` of the job.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, str] = field(default_factory=dict)


def read_template(body: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The instruction template that a load asks for; {} leaves the model's own.

    folder: where the templates are. Raises InvalidJob, or UnknownRoute with the names that there
    are: textgen itself would take Alpaca for a name that it does not know.
    """
    given = {key: body[key] for key in _TEMPLATE if body.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, str):
            raise InvalidJob(f"{key} must be a text")
    name = given.get(_TEMPLATE[0])
    known = sorted({path.stem for path in folder.iterdir()}) if folder.is_dir() else []
    if name is not None and name not in ("None", *known):
        raise UnknownRoute(
            f"there is no instruction template {name[:50]!r}; there are: {', '.join(known)[:300]}"
        )
    return given


def without_the_classics(args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The args without those that only the classic's loaders know, and the names of these.

    Its clients send them with every load: api-examples/api-example-model.py of
    text-generation-webui@snapshot-2023-11-05.
    """
    ignored = {key for key in args if key in classic_model.KEYS and _name(key) not in _KEYS}
    gone = [name for name in classic_model.LOADERS if name not in (LLAMA_CPP, TRANSFORMERS)]
    if args.get("loader") in gone:
        ignored.add("loader")
    return {key: value for key, value in args.items() if key not in ignored}, sorted(ignored)


def load_args(
    args: Mapping[str, Any], launch: Launch, loader: str, *, allow_any: bool
) -> dict[str, Any]:
    """The args to send: the caller's, and of the start what a load would forget.

    The engine keeps the loader of the last model, so it is always said. allow_any: pass on what is
    no option of a loader, too. Raises InvalidJob for a key or a path that may not be set.
    """
    slots = launch.slots if loader == LLAMA_CPP else 1
    named = {_name(key): value for key, value in _each_slots(args, slots).items()}
    if not allow_any:
        check(named)
    kept = _kept(launch) if loader == launch.loader == LLAMA_CPP else {}
    return {"loader": loader, **kept, **named}


def _each_slots(args: Mapping[str, Any], slots: int) -> dict[str, Any]:
    """The args with the context for all slots; the classic's name for it means that of one.

    Under the classic's names 0 says nothing.
    """
    said = {key: value for key, value in args.items() if key not in _OLD_NAMES or value != 0}
    return {
        key: value * slots if _OLD_NAMES.get(key) == "ctx_size" and type(value) is int else value
        for key, value in said.items()
    }


def check(args: Mapping[str, Any]) -> None:
    """Refuse what is no option of a loader, and paths out of the models folder; raises InvalidJob.

    Nothing goes to a shell, and a shell's characters are refused all the same.
    """
    named = {_name(key) for key in args}
    refused = sorted(named - _KEYS)
    if refused:
        raise InvalidJob(
            f"args can't set {', '.join(refused)[:150]}; only options of the model loaders such as "
            "ctx_size or gpu_layers"
        )
    for key, value in args.items():
        if not isinstance(value, (str, int, float, type(None))):
            raise InvalidJob(f"args.{key} must be a text, a number or true or false")
        if isinstance(value, str) and _OUTSIDE.search(value):
            raise InvalidJob(
                f"args.{key} must be a plain name, not a path out of the models folder"
            )


def _kept(launch: Launch) -> dict[str, int]:
    """The context and layers of the start."""
    values = {key: last(launch.arguments, flag) for key, flag in _KEPT.items()}
    return {key: int(value) for key, value in values.items() if value and _is_number(value)}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _name(key: str) -> str:
    """An option's name as textgen has it."""
    key = key.replace("-", "_")
    return _OLD_NAMES.get(key, key)
