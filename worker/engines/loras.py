"""Which LoRAs there are, under which names, and which of them a load asks for.

Light: it runs before the engine's process is started. llama.cpp takes a GGUF file, the other
loaders a folder with PEFT's adapter_config.json
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import InvalidJob, SettingsError, UnknownRoute
from worker.model_files import ADAPTER, GGUF
from worker.models import check_model

_ARG = "lora"


@dataclass(frozen=True, slots=True)
class Loras:
    """The LoRAs by name; a caller's name is only ever looked up, never made into a path.

    folder: looked into anew each time, for an operator may add some; None without one.
    chosen: those that the settings name by a path. start: names to load with the first model.
    """

    folder: Path | None
    chosen: Mapping[str, Path]
    start: tuple[str, ...]

    def known(self, *, gguf: bool) -> dict[str, Path]:
        """Those that an engine can take: GGUF files, or folders."""
        there: list[Path] = []
        if self.folder is not None and self.folder.is_dir():
            there = sorted(self.folder.iterdir())
        found = {_name(path): path for path in there if _fits(path, gguf=gguf)}
        return found | {name: path for name, path in self.chosen.items() if _fits(path, gguf=gguf)}

    def paths(self, names: Sequence[str], *, gguf: bool) -> list[Path]:
        """Where these are; UnknownRoute, with the names that there are, for any other."""
        known = self.known(gguf=gguf)
        for name in names:
            if name not in known:
                there = ", ".join(sorted(known))[:300] or "none"
                raise UnknownRoute(f"there is no LoRA {name[:80]!r}; there are: {there}")
        return [known[name] for name in names]

    def one_folder(self) -> Path | None:
        """The folder with those of the start, which are folders themselves; else `folder`.

        Raises SettingsError when they are not in one.
        """
        parents = {path.parent for path in self.check_start(gguf=False)}
        if len(parents) > 1:
            raise SettingsError("LORA has LoRAs of several folders; put them into one, LORAS_DIR")
        return parents.pop() if parents else self.folder

    def check_start(self, *, gguf: bool) -> list[Path]:
        """Where those of the start are.

        Raises SettingsError for one that is not there, EngineStartFailed for half a one.
        """
        try:
            paths = self.paths(self.start, gguf=gguf)
        except UnknownRoute as error:
            kind = "GGUF file" if gguf else f"folder with {ADAPTER}"
            raise SettingsError(
                f"LORA is {' '.join(self.start)!r}; {error} (a LoRA is a {kind} here)"
            ) from error
        for path in paths:
            check_model(path)
        return paths


def find_loras(words: Sequence[str], folder: Path | None) -> Loras:
    """Read names and paths as LORA has them, and look into a folder for the rest."""
    chosen = {
        _name(Path(word)): Path(word).expanduser().absolute() for word in words if "/" in word
    }
    return Loras(folder, chosen, tuple(_name(Path(word)) for word in words))


def take_names(args: Mapping[str, Any], default: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The LoRAs that a load's args ask for, else the default; and the args without them.

    null and an empty list are no LoRA. Raises InvalidJob.
    """
    others = {key: value for key, value in args.items() if key != _ARG}
    if _ARG not in args:
        return list(default), others
    return read_names(args[_ARG], f"args.{_ARG}"), others


def read_names(value: Any, field: str) -> list[str]:
    """A list of names, or one of them; raises InvalidJob that names the field."""
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InvalidJob(f"{field} must be a list of names, each once")
    return names


def _fits(path: Path, *, gguf: bool) -> bool:
    """Say whether it is a LoRA of the wanted kind, as far as can be seen."""
    return path.suffix == GGUF if gguf else (path / ADAPTER).is_file()


def _name(path: Path) -> str:
    """A file's name without its suffix, a folder's name with all its dots."""
    return path.name.removesuffix(GGUF)
