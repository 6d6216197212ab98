"""Every setting of the worker, read once from the environment and validated together.

`Settings.from_env` is the only reader. `docs/configuration.md` documents each variable; a test
fails when the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from worker.errors import SettingsError

Parser = Callable[[str], Any]


def _whole(low: int, high: int) -> Parser:
    """Parse a whole number from low to high."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return parse


def _seconds(low: float, high: float) -> Parser:
    """Parse seconds from low to high; NaN and infinity are refused."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"seconds from {low:g} to {high:g}")
        return number

    return parse


def _one_of(*values: str) -> Parser:
    """Parse one of a few words, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    """Parse on or off."""
    words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError("on or off")
    return words[text.lower()]


def _words(text: str) -> tuple[str, ...]:
    """Parse words with commas or spaces between them, quoted as in a shell."""
    import shlex  # noqa: PLC0415 - few starts need it

    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace += ","
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return tuple(lexer)
    except ValueError:
        raise ValueError("words; one has a quote without its end") from None


def _setting(variable: str, default: Any, parse: Parser, *, secret: bool = False) -> Any:
    """Declare a field with its environment variable and parser; a secret is never shown."""
    return field(default=default, repr=not secret, metadata={"variable": variable, "parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set. Times are in seconds; an unset or empty variable is the default."""

    engine: str = _setting("ENGINE", "auto", _one_of("auto", "embedded", "classic", "current"))
    engine_port: int = _setting("ENGINE_PORT", 5000, _whole(1, 65535))
    engine_slots: int = _setting("ENGINE_SLOTS", 4, _whole(1, 256))
    engine_threads: int = _setting("ENGINE_THREADS", 0, _whole(0, 1024))
    engine_context: int = _setting("ENGINE_CONTEXT", 2048, _whole(64, 1_048_576))
    engine_gpu_layers: int = _setting("ENGINE_GPU_LAYERS", 0, _whole(0, 10_000))
    engine_start_timeout: float = _setting("ENGINE_START_TIMEOUT", 360.0, _seconds(0.1, 3600))
    engine_stop_timeout: float = _setting("ENGINE_STOP_TIMEOUT", 5.0, _seconds(0, 600))
    engine_restarts: int = _setting("ENGINE_RESTARTS", 2, _whole(0, 100))
    engine_probe_timeout: float = _setting("ENGINE_PROBE_TIMEOUT", 1.0, _seconds(0.1, 600))
    engine_args: str = _setting("ENGINE_ARGS", "", str)
    engine_loader: str = _setting("ENGINE_LOADER", "", str)
    engine_trust_remote_code: bool = _setting("ENGINE_TRUST_REMOTE_CODE", False, _switch)
    engine_load_any_args: bool = _setting("ENGINE_LOAD_ANY_ARGS", False, _switch)
    webui_dir: Path | None = _setting("WEBUI_DIR", None, Path)  # noqa: RUF009  # a declaration
    webui_python: Path | None = _setting("WEBUI_PYTHON", None, Path)  # noqa: RUF009  # as above
    model: str = _setting("MODEL", "", str)
    model_admin: str = _setting("MODEL_ADMIN", "model", _one_of("off", "model", "all"))
    model_mmproj: str = _setting("MODEL_MMPROJ", "", str)
    lora: tuple[str, ...] = _setting("LORA", (), _words)
    loras_dir: Path | None = _setting("LORAS_DIR", None, Path)  # noqa: RUF009  # a declaration
    model_download_dir: Path = _setting("MODEL_DOWNLOAD_DIR", Path(".models"), Path)  # noqa: RUF009  # as above
    model_download_timeout: float = _setting("MODEL_DOWNLOAD_TIMEOUT", 3600.0, _seconds(1, 86_400))
    model_image_dir: Path = _setting("MODEL_IMAGE_DIR", Path("/models"), Path)  # noqa: RUF009  # as above
    volume: Path = _setting("VOLUME", Path("/runpod-volume"), Path)  # noqa: RUF009  # as above
    hf_token: str = _setting("HF_TOKEN", "", str, secret=True)
    hf_endpoint: str = _setting("HF_ENDPOINT", "https://huggingface.co", str)
    hf_hub_offline: bool = _setting("HF_HUB_OFFLINE", False, _switch)
    models_dir: Path | None = _setting("MODELS_DIR", None, Path)  # noqa: RUF009  # a declaration
    characters_dir: Path | None = _setting("CHARACTERS_DIR", None, Path)  # noqa: RUF009  # as above
    worker_loop: str = _setting("WORKER_LOOP", "event", _one_of("event", "stock"))
    worker_extra_jobs: int = _setting("WORKER_EXTRA_JOBS", 2, _whole(0, 256))
    worker_grace_period: float = _setting("WORKER_GRACE_PERIOD", 30.0, _seconds(0, 3600))
    job_timeout: float = _setting("JOB_TIMEOUT", 600.0, _seconds(0.1, 604_800))
    log_level: str = _setting("LOG_LEVEL", "info", _one_of("debug", "info", "warning", "error"))

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check all settings.

        Raises SettingsError with one line for each wrong variable: its name, what it holds and
        what it may hold.
        """
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for setting in fields(cls):
            variable, parse = setting.metadata["variable"], setting.metadata["parse"]
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[setting.name] = parse(text)
            except ValueError as error:
                wrong.append(f"{variable} is {text!r}; it must be {error}")
        if wrong:
            raise SettingsError("\n".join(wrong))
        return cls(**values)

    @classmethod
    def variables(cls) -> dict[str, Any]:
        """Every environment variable that is read, with its default."""
        return {setting.metadata["variable"]: setting.default for setting in fields(cls)}
