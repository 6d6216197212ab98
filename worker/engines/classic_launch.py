"""How a classic checkout is started: settings and ENGINE_ARGS -> one command line.

Facts from text-generation-webui@snapshot-2023-11-05: modules/shared.py, modules/models_settings.py
(infer_loader), modules/utils.py (get_available_models).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.engines.cores import usable_cores
from worker.engines.embedded_child import HOST
from worker.engines.loras import Loras, find_loras
from worker.engines.webui import (
    Argument,
    Checkout,
    check_args,
    command_words,
    find_python,
    last,
    last_list,
    split_args,
    without,
)
from worker.errors import EngineStartFailed, SettingsError
from worker.models import check_model
from worker.settings import Settings

_SUFFIX = ".gguf"
_NO_MODEL = (".txt", "-np", ".pt", ".json", ".yaml", ".py")
_LLAMA = ("llama.cpp", "llamacpp_HF", "ctransformers")
_EXLLAMA = ("ExLlama", "ExLlama_HF", "ExLlamav2", "ExLlamav2_HF")
_MERGED = ("--model", "--model-dir", "--api", "--lora", "--lora-dir")
_LORAS = "loras"
_MAX_PORT = 65535
_PORTS_TRIED = 500


@dataclass(frozen=True, slots=True)
class Launch:
    """One way to start the checkout.

    model: its name within model_dir, which is absolute. loras: those that there are, with those of
    the start.
    """

    python: Path
    checkout: Checkout
    model_dir: Path
    model: str
    arguments: Sequence[Argument]
    loras: Loras

    def argv(self, port: int, streaming_port: int, page_port: int) -> list[str]:
        """The command line. page_port is for gradio's page, which can't be switched off."""
        pairs: dict[str, object] = {
            "--api-blocking-port": port,
            "--api-streaming-port": streaming_port,
            "--listen-port": page_port,
            "--model": self.model,
        }
        if self.model_dir != self.checkout.folder / "models":
            pairs["--model-dir"] = self.model_dir
        own = [Argument(flag, (str(value),)) for flag, value in pairs.items()]
        words = command_words([Argument("--api"), *own, *self.arguments])
        return [str(self.python), "server.py", *words]


def plan(settings: Settings, checkout: Checkout) -> Launch:
    """Work out the launch; raises SettingsError, or EngineStartFailed for a broken GGUF file."""
    operator = check_args(
        checkout,
        split_args(settings.engine_args),
        trust_remote_code=settings.engine_trust_remote_code,
    )
    model_dir, model = _find_model(settings, operator, checkout.folder)
    loader = last(operator, "--loader") or settings.engine_loader
    loras = _loras(settings, operator, checkout.folder)
    return Launch(
        python=find_python(checkout.folder, settings.webui_python),
        checkout=checkout,
        model_dir=model_dir,
        model=model,
        arguments=[
            *_own_args(settings, loader or _inferred(model_dir / model)),
            *without(operator, *_MERGED),
            *_lora_args(loras, checkout.folder),
        ],
        loras=loras,
    )


def free_ports(after: int, count: int) -> list[int]:
    """The next free ports on loopback, nearest first.

    They are used many seconds later, so none is taken from those that the system gives to
    outgoing connections. Raises EngineStartFailed when there are not enough.
    """
    found: list[int] = []
    for offset in range(1, _PORTS_TRIED):
        port = after + offset if after + offset <= _MAX_PORT else after - offset
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise EngineStartFailed(f"there are no free ports near the engine's port {after}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _own_args(settings: Settings, loader: str) -> list[Argument]:
    """What the worker's settings say, in the flags of the loader."""
    pairs: dict[str, str] = {}
    if settings.engine_loader:
        pairs["--loader"] = settings.engine_loader
    if loader in _LLAMA:
        pairs["--n_ctx"] = str(settings.engine_context)
        pairs["--threads"] = str(settings.engine_threads or usable_cores())
        pairs["--n-gpu-layers"] = str(settings.engine_gpu_layers)
    if loader in _EXLLAMA:
        pairs["--max_seq_len"] = str(settings.engine_context)
    if settings.model_mmproj:
        raise SettingsError("MODEL_MMPROJ is set; the classic text-generation-webui takes none")
    return [Argument(flag, (value,)) for flag, value in pairs.items()]


def _loras(settings: Settings, operator: Sequence[Argument], checkout: Path) -> Loras:
    """The LoRAs; the engine looks for all of them in one folder, which a path in LORA decides."""
    words = last_list(operator, "--lora") or settings.lora
    given = last(operator, "--lora-dir")
    folder = checkout / given if given else (settings.loras_dir or checkout / _LORAS)
    return find_loras(words, folder.expanduser().absolute())


def _lora_args(loras: Loras, checkout: Path) -> list[Argument]:
    """The LoRAs of the start; raises SettingsError for one that can't be loaded."""
    folder = loras.one_folder()
    own = [] if folder == checkout / _LORAS else [Argument("--lora-dir", (str(folder),))]
    return [*own, Argument("--lora", loras.start)] if loras.start else own


def _inferred(path: Path) -> str:
    """The loader that the engine would choose, as far as it matters here."""
    if path.suffix.lower() == _SUFFIX or any(path.glob(f"*{_SUFFIX}")):
        return "llama.cpp"
    if (path / "quantize_config.json").is_file():
        return "ExLlama_HF"
    return "Transformers"


def _find_model(
    settings: Settings, operator: Sequence[Argument], checkout: Path
) -> tuple[Path, str]:
    """The models folder and the name there; raises SettingsError with the names there are."""
    chosen = last(operator, "--model") or settings.model
    folder = last(operator, "--model-dir")
    model_dir = checkout / folder if folder else (settings.models_dir or checkout / "models")
    if chosen and Path(chosen).is_absolute():
        model_dir, chosen = Path(chosen).parent, Path(chosen).name
    model_dir = model_dir.expanduser().absolute()
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
    """What the classic lists as models."""
    if not folder.is_dir():
        return []
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.endswith(_NO_MODEL) and not path.name.startswith(".")
    )
