"""What a checkout of text-generation-webui tells before it is started, for both its generations.

Its files are read, never imported. Facts from https://github.com/oobabooga/text-generation-webui:
snapshot-2023-11-05 (classic) and textgen v4.9 (current), modules/shared.py and server.py.
"""

from __future__ import annotations

import ast
import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from worker.errors import SettingsError


class Generation(Enum):
    """Which HTTP API the checkout speaks."""

    CLASSIC = "classic"  # the blocking API, /api/v1/*, up to November 2023
    CURRENT = "current"  # the OpenAI-compatible API, /v1/*


_MARKS = {
    Generation.CLASSIC: ("extensions/api/blocking_api.py",),
    # Between v1.8 and v4 the current API was an extension, with the same flags and routes.
    Generation.CURRENT: ("modules/api/script.py", "extensions/openai/script.py"),
}
_PYTHONS = ("venv/bin/python", ".venv/bin/python", "installer_files/env/bin/python")

_WORKER_ONLY = "the engine may be reached through the worker only"
_OWN_PORTS = "ENGINE_PORT sets the engine's port, and the worker chooses the others"
_UNKNOWN = "it is unknown to this checkout"
_LOCKED_OUT = "the worker would be locked out, and the key would be in the log"
TRUST_REMOTE_CODE = "--trust-remote-code"
# What would break the containment of the engine, or the worker's way to it.
REFUSED: Mapping[str, str] = {
    "--listen": _WORKER_ONLY,
    "--listen-host": _WORKER_ONLY,
    "--share": _WORKER_ONLY,
    "--public-api": _WORKER_ONLY,
    "--public-api-id": _WORKER_ONLY,
    "--listen-port": _OWN_PORTS,
    "--api-port": _OWN_PORTS,
    "--api-blocking-port": _OWN_PORTS,
    "--api-streaming-port": _OWN_PORTS,
    "--api-key": _LOCKED_OUT,
    "--admin-key": _LOCKED_OUT,
    "--api-disable-ipv4": "the worker speaks to 127.0.0.1",
    "--ssl-keyfile": "the worker speaks plain HTTP to the engine",
    "--ssl-certfile": "the worker speaks plain HTTP to the engine",
    "--idle-timeout": "a model that unloads itself would be taken for a dead one",
    "--model-menu": "it asks at a terminal, and there is none",
}

_ENVIRONMENT = frozenset(
    ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "TZ")
)
_ENVIRONMENT_PREFIXES = (
    *("CUDA_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_", "HSA_"),
    *("GGML_", "LLAMA_", "OMP_", "GOMP_", "MKL_"),
    *("HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH_", "PYTORCH_", "TRITON_"),
)
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
# llama-server reads any of its flags from LLAMA_ARG_*; the host is the engine's own business.
_NEVER = ("LLAMA_ARG_HOST", "LLAMA_ARG_PORT")
# The engine wraps its log lines at the width of the terminal that it has not got.
_LOG_COLUMNS = "160"


@dataclass(frozen=True, slots=True)
class Argument:
    """One flag with its values, as on a command line: `--lora a b`, `--cpu`."""

    flag: str
    values: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The words of the command line; argparse takes a value like a flag only after a =."""
        if len(self.values) == 1 and self.values[0].startswith("--"):
            return [f"{self.flag}={self.values[0]}"]
        return [self.flag, *self.values]


@dataclass(frozen=True, slots=True)
class Checkout:
    """One checkout that can be started.

    folder: absolute, the process's working directory. flags: every spelling of a flag that the
    checkout knows -> the flag's first spelling (`--n_ctx` -> `--ctx-size`).
    """

    folder: Path
    generation: Generation
    flags: Mapping[str, str]

    def knows(self, flag: str) -> bool:
        """Say whether this checkout has the flag, in this spelling."""
        return flag in self.flags

    def canonical(self, arguments: Iterable[Argument]) -> list[Argument]:
        """The same arguments with each flag in its first spelling; unknown ones as they are."""
        return [Argument(self.flags.get(a.flag, a.flag), a.values) for a in arguments]


def open_checkout(folder: Path) -> Checkout:
    """Look at a checkout: its generation and its flags. Raises SettingsError."""
    folder = folder.expanduser().absolute()
    generation = generation_of(folder)
    try:
        source = (folder / "modules" / "shared.py").read_text("utf-8", "replace")
    except OSError as error:
        raise SettingsError(
            f"WEBUI_DIR is {str(folder)!r}; its modules/shared.py can't be read"
        ) from error
    return Checkout(folder, generation, read_flags(source))


def generation_of(folder: Path) -> Generation:
    """Tell a checkout's generation by its files; SettingsError when it is no checkout."""
    for generation, marks in _MARKS.items():
        if any((folder / mark).is_file() for mark in marks):
            return generation
    raise SettingsError(
        f"WEBUI_DIR is {str(folder)!r}; it must be a folder with text-generation-webui in it"
    )


def read_flags(source: str) -> dict[str, str]:
    """Find the flags that a `modules/shared.py` declares: each spelling -> the first one.

    Every call of a method `add_argument` with literal names counts, whatever it is called on. A
    source that is no Python of this version has no flags, and no flag is refused as unknown then.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    flags: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node.func) == "add_argument":
            names = _option_names(node)
            # --no-x comes with argparse.BooleanOptionalAction.
            if any(_called(keyword.value) == "BooleanOptionalAction" for keyword in node.keywords):
                flags.update({f"--no-{name[2:]}": f"--no-{names[0][2:]}" for name in names})
            flags.update(dict.fromkeys(names, names[0] if names else ""))
    return flags


def split_args(text: str, source: str = "ENGINE_ARGS") -> list[Argument]:
    """Split a command line as a shell does, into flags with their values.

    Where a flag is given twice the last one wins, in the engine as in `last`.
    Raises SettingsError, naming `source`, for open quotes or a value without a flag.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"{source} is {text!r}; it has a quote without its end") from error
    arguments: list[Argument] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and len(flag) > 2 and " " not in flag:
            arguments.append(Argument(flag, (value,) if equals else ()))
        elif not arguments:
            raise SettingsError(f"{source} is {text!r}; it must begin with a flag such as --cpu")
        else:
            before = arguments[-1]
            arguments[-1] = Argument(before.flag, (*before.values, word))
    return arguments


def check_args(
    checkout: Checkout,
    arguments: Iterable[Argument],
    *,
    trust_remote_code: bool,
    source: str = "ENGINE_ARGS",
) -> list[Argument]:
    """Return the arguments in canonical spelling, fit to be given to this checkout.

    Raises SettingsError with one line for each flag that the checkout does not know (with the
    nearest one that it does) or that is refused (with the reason). Abbreviations, which argparse
    would take, count as unknown: they would be a way around the refusals.
    """
    checked = checkout.canonical(arguments)
    wrong = [
        f"{source} has {argument.flag}; {fault}"
        for argument in checked
        if (fault := _fault(checkout, argument, trust_remote_code=trust_remote_code))
    ]
    if wrong:
        raise SettingsError("\n".join(wrong))
    return checked


def read_command_file(path: Path) -> list[Argument]:
    """The flags in a CMD_FLAGS.txt, which the current generation puts before its command line.

    Lines that begin with # are comments, a backslash at the end of a line is dropped. Without such
    a file there are none. Raises SettingsError.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    kept = (line.strip().rstrip("\\").strip() for line in lines if not line.strip().startswith("#"))
    return split_args(" ".join(kept), source=path.name)


def last(arguments: Sequence[Argument], flag: str) -> str | None:
    """The value that counts of a flag with one value: the last one given. None without one."""
    values = last_list(arguments, flag)
    return values[-1] if values else None


def last_list(arguments: Sequence[Argument], flag: str) -> tuple[str, ...]:
    """The values that count of a flag that takes many; empty without one."""
    return next((a.values for a in reversed(arguments) if a.flag == flag), ())


def without(arguments: Iterable[Argument], *flags: str) -> list[Argument]:
    """The arguments but for some flags, which the worker merges into its own."""
    return [argument for argument in arguments if argument.flag not in flags]


def command_words(arguments: Iterable[Argument]) -> list[str]:
    """The words of a command line."""
    return [word for argument in arguments for word in argument.words()]


def find_python(folder: Path, chosen: Path | None) -> Path:
    """The Python that runs the checkout: the chosen one, its own, or else the worker's.

    Raises SettingsError for a chosen one that is not there.
    """
    if chosen is not None:
        if not chosen.is_file():
            raise SettingsError(f"WEBUI_PYTHON is {str(chosen)!r}; it must be a Python's program")
        return chosen.absolute()
    own = (folder / name for name in _PYTHONS)
    return next((path for path in own if path.is_file()), Path(sys.executable))


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the engine may see of the worker's environment: no secrets, no setting of its API.

    Threads that spin while they wait slow down everything else, so they sleep unless the operator
    wants otherwise.
    """
    passed = {name: value for name, value in environ.items() if _may_pass(name)}
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "COLUMNS": _LOG_COLUMNS,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        **passed,
    }


def _may_pass(name: str) -> bool:
    """Say whether the engine may see a variable."""
    if name in _NEVER or _SECRET_NAME.search(name.removeprefix("TOKENIZERS_")):
        return False
    return name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)


def _fault(checkout: Checkout, argument: Argument, *, trust_remote_code: bool) -> str | None:
    """Tell what is wrong with a flag, as the end of a sentence; None when it may be given."""
    flag = argument.flag
    if flag in REFUSED:
        return f"it is refused: {REFUSED[flag]}"
    if flag == TRUST_REMOTE_CODE and not trust_remote_code:
        return "it is refused unless ENGINE_TRUST_REMOTE_CODE is on: a model could run any program"
    if flag == "--extra-flags" and re.search(r"\b(host|port)\b", " ".join(argument.values)):
        return f"a host or port in it is refused: {_WORKER_ONLY}"
    if not checkout.flags or checkout.knows(flag):
        return None
    allowed = [known for known in checkout.flags if known not in REFUSED]
    near = difflib.get_close_matches(flag, allowed, n=1, cutoff=0.5)
    return f"it is unknown to this checkout; the nearest is {near[0]}" if near else _UNKNOWN


def _called(node: ast.expr) -> str:
    """The last name in a.b.c or c; "" for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _option_names(call: ast.Call) -> list[str]:
    """The long spellings that an `add_argument` declares."""
    literals = (arg.value for arg in call.args if isinstance(arg, ast.Constant))
    return [name for name in literals if isinstance(name, str) and name.startswith("--")]
