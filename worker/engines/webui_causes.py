"""What text-generation-webui prints when it fails -> the cause, in words for people. Pure.

Facts from https://github.com/oobabooga/text-generation-webui, snapshot-2023-11-05 and textgen v4.9.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from worker.plain import plain

MEMORY = "there is not enough memory for this model and context"
CUDA = "a CUDA error: the GPU or its driver failed"
NO_MODEL = "there is no such model in its models folder"
BROKEN_MODEL = "the model file is broken or of an unknown kind"
BROKEN_LORA = "a LoRA is broken, or made for another model"
BAD_MMPROJ = "the file of MODEL_MMPROJ is none, or is not made for this model"
ONE_LORA = "it can't put several LoRAs on one model; load one of them"
PORT_TAKEN = "its port is taken"

# A pattern -> the cause, the most telling first; groups are put into the cause.
_CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), cause)
    for pattern, cause in (
        (r"port \d+ is already in use|address already in use|cannot find empty port", PORT_TAKEN),
        (r"out of memory|outofmemoryerror|failed to allocate|memoryerror|bad_alloc", MEMORY),
        (r"add_weighted_adapter|loras cannot be merged|max\(\) arg is an empty sequence", ONE_LORA),
        (
            r"lora adapter|load_peft_weights|set_peft_model_state_dict|"
            r"target modules .{1,300} not found in the base model",
            BROKEN_LORA,
        ),
        (r"failed to load multimodal model|failed to load clip model", BAD_MMPROJ),
        (
            r"unknown model architecture|does not recognize this architecture|"
            r"config_mapping\[config_dict\[.model_type.\]\]",
            "it does not know this kind of model",
        ),
        (
            r"the path to the model does not exist|no \.?gguf models? found|could not find the "
            r"quantized model|does not appear to have a file named|"
            r"is not the path to a directory containing a file named|"
            r"no such file.{0,200}/models/",
            NO_MODEL,
        ),
        (
            r"error loading model|failed to load model|unable to load the? ?weights|"
            r"headertoolarge|incomplete ?metadata|not a valid gguf|headerincomplete|"
            r"metadataincompletebuffer|invalid magic|unpicklingerror|failed to read magic",
            BROKEN_MODEL,
        ),
        (r"no module named '?([\w.-]{1,60})", "its Python lacks the package {0}"),
        (r"error: (argument .{1,120}|unrecognized arguments: .{1,80})", "{0}"),
        (r"can't find ['\"]?adapter_config|adapter_config\.json", "there is no such LoRA"),
        (r"no module named peft|peft is not", "its Python lacks the package peft"),
        (r"cuda error|device-side assert|illegal memory access", CUDA),
        (r"no cuda gpus|nvidia driver", "the GPU or its driver can't be used"),
        (r"no space left on device", "the disk is full"),
    )
)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def clean(line: str) -> str:
    """A line of the log without colours and without the padding to the terminal's width."""
    return _ANSI.sub("", line).rstrip()


def cause_of(lines: Sequence[str]) -> str | None:
    """The cause that a log tells, None when it tells none of the known ones.

    A line may be wrapped, so the lines are joined before they are read.
    """
    text = " ".join(clean(line).strip() for line in lines)
    for pattern, cause in _CAUSES:
        if match := pattern.search(text):
            return plain(cause.format(*match.groups()))
    return None


def last_words(lines: Sequence[str]) -> str:
    """The last line that says something, fit for a caller; "" when there is none."""
    return plain(next((text for line in reversed(lines) if (text := clean(line).strip())), ""))


def died(lines: Sequence[str], exit_text: str, *, by_itself: bool, who: str = "engine") -> str:
    """One sentence on a process that ended: the cause if it is known, else how it ended.

    by_itself: nobody ended it, so what it printed tells the cause.
    """
    cause = cause_of(lines) if by_itself else None
    if cause:
        return f"the {who} ended: {cause}"
    words = last_words(lines) if by_itself else ""
    return f"the {who} ended: {exit_text}{f', its last words: {words}' if words else ''}"
