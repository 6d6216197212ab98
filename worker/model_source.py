"""What the setting that names a model says: a path, a name, a repository's files or a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from worker.errors import SettingsError

# https://huggingface.co/docs/huggingface_hub/package_reference/utilities: validate_repo_id
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(
    rf"(?P<id>{_WORD}/{_WORD})(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?(?::(?P<pattern>[\w.*/-]+))?"
)
_NAME = re.compile(_WORD)
_FORMS = (
    "a path, a name in MODELS_DIR, org/name, org/name:Q4_K_M, org/name@revision:file.gguf, "
    "or https://host/file.gguf#sha256=<64 hex digits>"
)
_ANY = "*"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file or a folder of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class Name:
    """A file (with or without `.gguf`) or a folder in one of the models folders, "" for none."""

    name: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A Hugging Face repository.

    revision: a branch, tag or commit, None for `main`. pattern: a file, a quantisation such as
    Q4_K_M, or a shell pattern. projector: choose among the mmproj files, not the models.
    """

    id: str
    revision: str | None = None
    pattern: str | None = None
    projector: bool = False


@dataclass(frozen=True, slots=True)
class Url:
    """One file behind https, with the digest that its bytes must have."""

    url: str
    sha256: str
    name: str


Source = LocalPath | Name | Repository | Url


def read(text: str, setting: str) -> Source:
    """Read a setting that may also hold a name of the engine's own, which needs no form at all."""
    return parse(text, setting) if "/" in text or text.startswith("~") else Name(text)


def parse(text: str, setting: str = "MODEL") -> Source:
    """Read a model's setting; raises SettingsError with the forms that there are.

    What starts with `/`, `./`, `../` or `~` is a path, and so is anything else with a slash that
    ends in `.gguf` without naming a repository's file after a colon.
    """
    if "://" in text:
        return _url(text, setting)
    if text.startswith(("/", "./", "../", "~")):
        return LocalPath(Path(text).expanduser().absolute())
    if _NAME.fullmatch(text) and ".." not in text:
        return Name(text)
    if "/" in text and ":" not in text and text.endswith(".gguf"):
        return LocalPath(Path(text).absolute())
    match = _REPOSITORY.fullmatch(text)
    if match is None or _climbs(text):
        raise SettingsError(f"{setting} is {text!r}; it must be {_FORMS}")
    return Repository(match["id"], match["revision"], match["pattern"])


def projector_of(model: Source, text: str) -> Source:
    """Read MODEL_MMPROJ: a pattern within the model's repository (`*`: the only one), or a source.

    Raises SettingsError when it is a pattern and the model is not in a repository.
    """
    if text == _ANY or ("/" not in text and isinstance(model, Repository)):
        if not isinstance(model, Repository):
            raise SettingsError(f"MODEL_MMPROJ is {text!r}; without a repository it must be a path")
        return replace(model, pattern=text, projector=True)
    source = parse(text, "MODEL_MMPROJ")
    return replace(source, projector=True) if isinstance(source, Repository) else source


def _url(text: str, setting: str) -> Url:
    """Take a URL and its digest apart; the setting's text is not repeated: it may hold a key."""
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - other models start without it

    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise SettingsError(f"{setting} is not a URL; it must be {_FORMS}") from None
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", parts.fragment)
    if parts.scheme != "https" or not named or parts.username is not None:
        raise SettingsError(f"{setting} must be an https URL without a user or password")
    if digest is None:
        raise SettingsError(f"{setting} must end in #sha256=<64 hex digits> after the URL")
    name = unquote(parts.path.rpartition("/")[2])
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{setting} must be a URL that ends in a file's name")
    return Url(parts._replace(fragment="").geturl(), digest[1].lower(), name)


def _climbs(text: str) -> bool:
    """Whether a repository's name, revision or file leads out of its folder."""
    return ".." in text or "//" in text or "--" in text.partition("@")[0].partition(":")[0]
