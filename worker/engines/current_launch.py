"""How a checkout of today's textgen is started: settings and ENGINE_ARGS -> one command line.

Facts from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/shared.py,
modules/models_settings.py (infer_loader), modules/text_generation.py (which loaders are parallel).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.engines.cores import usable_cores
from worker.engines.loras import Loras, find_loras
from worker.engines.webui import (
    Argument,
    Checkout,
    check_args,
    command_words,
    find_python,
    last,
    last_list,
    read_command_file,
    split_args,
    without,
)
from worker.errors import SettingsError
from worker.models import check_model, gguf_file
from worker.settings import Settings

LLAMA_CPP = "llama.cpp"
TRANSFORMERS = "Transformers"
LORA_LOADERS = (LLAMA_CPP, TRANSFORMERS)
EXTENSION = "worker_state"
_PARALLEL = (LLAMA_CPP, "ExLlamav3", "TensorRT-LLM")
_SUFFIX = ".gguf"
_MERGED = ("--extensions", "--user-data-dir", "--model-dir", "--model", "--lora", "--extra-flags")


_NO_LORAS = Loras(None, {}, ())


@dataclass(frozen=True, slots=True)
class Launch:
    """One way to start the checkout.

    user_data: the folder that the engine's own data is in, overlaid at the spawn.
    model: its name within model_dir. slots: how many generations really run at once. loras: those
    that there are, with those of the start. extra_flags: llama-server's own, without the LoRAs.
    """

    python: Path
    checkout: Checkout
    user_data: Path
    model_dir: Path
    model: str
    loader: str
    slots: int
    arguments: Sequence[Argument]
    extensions: Sequence[str]
    loras: Loras = _NO_LORAS
    extra_flags: str = ""

    def argv(self, port: int, user_data: Path) -> list[str]:
        """The command line, with the user data folder that was overlaid; our flags come first."""
        own = [
            Argument("--nowebui"),
            Argument("--api"),
            Argument("--api-port", (str(port),)),
            Argument("--user-data-dir", (str(user_data),)),
            Argument("--model-dir", (str(self.model_dir),)),
            Argument("--model", (self.model,)),
        ]
        extensions = Argument("--extensions", (EXTENSION, *self.extensions))
        words = command_words([*own, *self.arguments, extensions])
        return [str(self.python), "server.py", *words]

    @property
    def model_path(self) -> Path:
        """Where the model is."""
        return self.model_dir / self.model


def plan(settings: Settings, checkout: Checkout) -> Launch:
    """Work out the launch; raises SettingsError, or EngineStartFailed for a broken model file."""
    if not checkout.knows("--user-data-dir"):
        raise SettingsError(
            f"WEBUI_DIR is {str(checkout.folder)!r}; its textgen is too old: it has no "
            "--user-data-dir. Use version 4 or later, or a classic one"
        )
    operator = _operator_args(settings, checkout)
    user_data = _folder(checkout, last(operator, "--user-data-dir") or "user_data")
    model_dir, model = _find_model(settings, operator, checkout, user_data)
    loader = _loader(settings, operator, model_dir / model)
    slots = _slots(settings, operator, loader)
    loras = _loras(settings, operator, checkout, user_data)
    extra_flags = last(operator, "--extra-flags") or ""
    return Launch(
        python=find_python(checkout.folder, settings.webui_python),
        checkout=checkout,
        user_data=user_data,
        model_dir=model_dir,
        model=model,
        loader=loader,
        slots=slots,
        arguments=[
            *_own_args(settings, loader, slots),
            *without(operator, *_MERGED),
            *_lora_args(loras, loader, extra_flags),
        ],
        loras=loras,
        extra_flags=extra_flags,
        extensions=[name for name in last_list(operator, "--extensions") if name != EXTENSION],
    )


def loader_of(path: Path, chosen: str = "") -> str:
    """The loader for a model, chosen or as the engine itself would choose."""
    if path.suffix.lower() == _SUFFIX or any(path.glob(f"*{_SUFFIX}")):
        return LLAMA_CPP
    if chosen and chosen != LLAMA_CPP:
        return chosen
    return "ExLlamav3" if "exl3" in path.name.lower() else TRANSFORMERS


def with_loras(extra_flags: str, paths: Sequence[Path]) -> str:
    """llama-server's extra flags with some LoRAs, in textgen's newer or older way of writing."""
    if not paths:
        return extra_flags
    flags = extra_flags.strip("'\" ")
    if flags and not flags.startswith("-"):
        return ",".join([flags, *(f"lora={path}" for path in paths)])
    return " ".join([flags, *(f"--lora {shlex.quote(str(path))}" for path in paths)]).strip()


def _operator_args(settings: Settings, checkout: Checkout) -> list[Argument]:
    """The flags of CMD_FLAGS.txt, then those of ENGINE_ARGS, checked."""
    trust = settings.engine_trust_remote_code
    given = check_args(checkout, split_args(settings.engine_args), trust_remote_code=trust)
    user_data = _folder(checkout, last(given, "--user-data-dir") or "user_data")
    file = user_data / "CMD_FLAGS.txt"
    standing = check_args(
        checkout, read_command_file(file), trust_remote_code=trust, source=file.name
    )
    return [*standing, *given]


def _own_args(settings: Settings, loader: str, slots: int) -> list[Argument]:
    """What the worker's settings say; llama.cpp divides its context among the slots."""
    pairs = {"--loader": loader, "--ctx-size": str(settings.engine_context)}
    if loader == LLAMA_CPP:
        pairs["--ctx-size"] = str(settings.engine_context * slots)
        pairs["--parallel"] = str(slots)
        pairs["--threads"] = str(settings.engine_threads or usable_cores())
        if settings.engine_gpu_layers:
            pairs["--gpu-layers"] = str(settings.engine_gpu_layers)
    if settings.model_mmproj and loader != LLAMA_CPP:
        raise SettingsError(f"MODEL_MMPROJ is set; {loader} takes none, only {LLAMA_CPP} does")
    if settings.model_mmproj:
        pairs["--mmproj"] = str(gguf_file(settings.model_mmproj, "MODEL_MMPROJ"))
    return [Argument(flag, (value,)) for flag, value in pairs.items()]


def _loras(
    settings: Settings, operator: Sequence[Argument], checkout: Checkout, user_data: Path
) -> Loras:
    """The LoRAs; the engine looks for all of them in one folder, which a path in LORA decides."""
    words = last_list(operator, "--lora") or settings.lora
    given = last(operator, "--lora-dir")
    folder = _folder(checkout, given) if given else settings.loras_dir
    return find_loras(words, (folder or user_data / "loras").absolute())


def _lora_args(loras: Loras, loader: str, extra_flags: str) -> list[Argument]:
    """The LoRAs of the start; raises SettingsError for one that can't be loaded."""
    if loader == LLAMA_CPP:
        flags = with_loras(extra_flags, loras.check_start(gguf=True))
        return [Argument("--extra-flags", (flags,))] if flags else []
    if loras.start and loader not in LORA_LOADERS:
        raise SettingsError(f"LORA is set; {loader} takes none, {' and '.join(LORA_LOADERS)} do")
    own = [Argument("--lora-dir", (str(loras.one_folder()),))]
    return [*own, Argument("--lora", loras.start)] if loras.start else own


def _slots(settings: Settings, operator: Sequence[Argument], loader: str) -> int:
    """How many generations the loader runs at once; --parallel is llama.cpp's."""
    if loader not in _PARALLEL:
        return 1
    parallel = last(operator, "--parallel") if loader == LLAMA_CPP else None
    return int(parallel) if parallel and parallel.isdigit() else settings.engine_slots


def _loader(settings: Settings, operator: Sequence[Argument], path: Path) -> str:
    """ENGINE_ARGS, then ENGINE_LOADER, then what the model's files tell."""
    return last(operator, "--loader") or settings.engine_loader or loader_of(path)


def _find_model(
    settings: Settings, operator: Sequence[Argument], checkout: Checkout, user_data: Path
) -> tuple[Path, str]:
    """The model's folder and its name there; raises SettingsError with the names there are."""
    chosen = last(operator, "--model") or settings.model
    folder = last(operator, "--model-dir")
    model_dir = _folder(checkout, folder) if folder else settings.models_dir
    model_dir = (model_dir or user_data / "models").absolute()
    if chosen and Path(chosen).is_absolute():
        model_dir, chosen = Path(chosen).parent, Path(chosen).name
    names = _model_names(model_dir)
    if not chosen and len(names) == 1:
        chosen = names[0]
    for name in (chosen, chosen + _SUFFIX):
        if chosen and (model_dir / name).exists():
            check_model(model_dir / name)
            return model_dir, name
    known = ", ".join(names)[:500] or "none: put one into the models folder"
    problem = f"MODEL is {chosen!r}; it must be" if chosen else "MODEL is not set; it must be"
    raise SettingsError(f"{problem} one of the models of text-generation-webui ({known})")


def _model_names(folder: Path) -> list[str]:
    """What looks like a model in a folder: GGUF files and folders."""
    if not folder.is_dir():
        return []
    return sorted(
        path.name
        for path in folder.iterdir()
        if (path.is_dir() or path.suffix == _SUFFIX) and not path.name.startswith(("mmproj", "."))
    )


def _folder(checkout: Checkout, name: str) -> Path:
    """A folder that the engine is told of, as the engine in its checkout would find it."""
    return checkout.folder / Path(name).expanduser()
