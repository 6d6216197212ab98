"""Which files of a repository's listing a model needs: one quantisation whole, no duplicates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from worker.model_errors import ModelUnavailable

GGUF = ".gguf"
WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
# https://github.com/ggml-org/llama.cpp/blob/master/tools/gguf-split/README.md
SPLIT = re.compile(r"(?P<name>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
# llama.cpp's own choice when a repository is named without a quantisation:
# https://github.com/ggml-org/llama.cpp/blob/master/docs/preset.md and `--hf-repo`
USUAL_QUANTISATION = "Q4_K_M"
# The projector of a vision model: https://github.com/ggml-org/llama.cpp/blob/master/docs/multimodal.md
PROJECTOR = "mmproj"
_NOT_A_MODEL = (PROJECTOR, "imatrix")
_BESIDE_WEIGHTS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a repository: its path there, bytes, and digests as far as they are known.

    sha256 is of the content (large files), git_sha1 of git's blob of it (small ones).
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The needed files, weights last, and what the engine is given: a file, or "" for the folder.

    Weights come last so that a folder with all its weights has everything else too.
    """

    files: tuple[Listed, ...]
    main: str


def choose(files: Iterable[Listed], pattern: str | None, *, projector: bool = False) -> Chosen:
    """Choose a GGUF model (every part of a split), or safetensors weights with what they need.

    Raises ModelUnavailable when nothing or more than one model matches, or a part is missing;
    the text lists what there is, up to 8 names.
    """
    usable = sorted((file for file in files if is_inside(file.path)), key=lambda file: file.path)
    ggufs = _models(usable, projector=projector)
    weights = [file for file in usable if file.path.endswith(WEIGHTS)]
    if not projector and weights and (pattern is None or not ggufs):
        return _safetensors(usable, weights, pattern)
    kind = "mmproj" if projector else "model"
    if not ggufs:
        end = "mmproj file" if projector else ".gguf or .safetensors file"
        raise ModelUnavailable(f"the repository has no {end}{_there_is(f.path for f in usable)}")
    found = _matching(ggufs, pattern)
    if not found:
        what = "" if pattern is None else f" that matches {pattern!r}"
        raise ModelUnavailable(f"the repository has no {kind}{what}{_there_is(ggufs)}")
    if len(found) > 1:
        raise ModelUnavailable(
            f"more than one {kind} of the repository fits; name one after a colon{_there_is(found)}"
        )
    return _whole(*found.popitem())


def is_inside(path: str) -> bool:
    """Whether a path from a listing stays in the folder that it is put under."""
    parts = PurePosixPath(path).parts
    return bool(parts) and path[0] != "/" and ".." not in parts and not set(path) & set("\\\0")


def missing_parts(names: Iterable[str]) -> list[str]:
    """The parts of split files that are not among the names, of those of which some part is."""
    there = set(names)
    missing: set[str] = set()
    for name in there:
        stem, dot, suffix = name.rpartition(".")
        parts = split_parts(stem) or []
        missing.update(part + dot + suffix for part in parts if part + dot + suffix not in there)
    return sorted(missing)


def split_parts(stem: str) -> list[str] | None:
    """All stems of a split file's parts, None when the stem is not one of a split."""
    split = SPLIT.fullmatch(stem)
    if split is None:
        return None
    return [
        f"{split['name']}-{n:05d}-of-{split['parts']}" for n in range(1, int(split["parts"]) + 1)
    ]


def parts_of(path: Path) -> list[Path]:
    """A GGUF file itself, or every part of a split one."""
    parts = split_parts(path.stem) if path.suffix == GGUF else None
    return [path.with_name(part + GGUF) for part in parts] if parts else [path]


def _models(files: Sequence[Listed], *, projector: bool) -> dict[str, list[Listed]]:
    """GGUF files by model; the parts of a split one under their common name and its number."""
    models: dict[str, list[Listed]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        named = path.name.lower()
        wanted = PROJECTOR in named if projector else not any(n in named for n in _NOT_A_MODEL)
        if path.suffix == GGUF and wanted:
            parts = split_parts(path.stem)
            first = path.with_name(parts[0] + GGUF) if parts else path
            models.setdefault(str(first), []).append(file)
    return models


def _matching(models: dict[str, list[Listed]], pattern: str | None) -> dict[str, list[Listed]]:
    """The models that a pattern fits; without one the only model, else the usual quantisation."""
    if pattern is None:
        return models if len(models) == 1 else _matching(models, USUAL_QUANTISATION)
    if pattern in models:
        return {pattern: models[pattern]}
    return {first: files for first, files in models.items() if _fits(first, pattern)}


def _fits(first: str, pattern: str) -> bool:
    """Whether a file is meant: by a shell pattern, or by a whole word of its name.

    A word ends at `-`, `.` or `/`, so that Q4_K is not taken for Q4_K_M.
    """
    lower, wanted = first.lower(), pattern.lower()
    if "*" in wanted:
        return fnmatchcase(lower, wanted)
    stem = lower.removesuffix(GGUF)
    split = SPLIT.fullmatch(stem)
    whole = split["name"] if split else stem
    return (
        re.search(rf"(?:^|[-_./]){re.escape(wanted.removesuffix(GGUF))}(?:$|[-.])", whole)
        is not None
    )


def _whole(first: str, files: list[Listed]) -> Chosen:
    """The model with all its parts, in order."""
    parts = split_parts(PurePosixPath(first).stem)
    if parts is not None and len(files) != len(parts):
        name = PurePosixPath(first).name
        raise ModelUnavailable(
            f"the split model {name} is not complete: {len(files)} of {len(parts)} parts are there"
        )
    return Chosen(tuple(files), first)


def _safetensors(files: Sequence[Listed], weights: Sequence[Listed], pattern: str | None) -> Chosen:
    """The weights of a Transformers model or a LoRA at the top of the repository, and the rest.

    Pickled weights (.bin, .pth) are never taken: they run code when they are loaded. Neither is
    Python code.
    """
    if pattern is not None:
        raise ModelUnavailable(
            f"the repository has no .gguf model, so {pattern!r} fits nothing; leave it out"
        )
    top = [file for file in weights if "/" not in file.path]
    names = {file.path for file in files}
    sharded = [file for file in top if SPLIT.fullmatch(file.path.removesuffix(WEIGHTS))]
    if ADAPTER in names:
        top = [file for file in top if file.path.startswith("adapter_model")]
    elif INDEX in names and sharded:
        top = sharded
    elif any(file.path == "model.safetensors" for file in top):
        top = [file for file in top if file.path == "model.safetensors"]
    if not top:
        raise ModelUnavailable(
            f"the repository has no weights at its top{_there_is(file.path for file in weights)}"
        )
    if missing := missing_parts(file.path for file in top):
        raise ModelUnavailable(f"the weights are not complete: {missing[0]} is missing")
    beside = [f for f in files if "/" not in f.path and f.path.endswith(_BESIDE_WEIGHTS)]
    return Chosen((*beside, *top), "")


def _there_is(names: Iterable[str]) -> str:
    """The end of a sentence that lists what there is."""
    found = list(names)
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return f"; there is: {', '.join(found[:_NAMES_SHOWN])}{more}" if found else "; it is empty"
