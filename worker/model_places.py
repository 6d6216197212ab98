"""The folders that models are looked for in, and how they are kept there.

A repository is kept as Hugging Face's cache does (`models--org--name/refs`, `snapshots`:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache), or as a plain folder `org/name`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from worker.model_check import check
from worker.model_errors import ModelUnavailable
from worker.model_files import GGUF, Listed, choose
from worker.model_source import LocalPath, Name, Repository, Source, Url

# https://docs.runpod.io/serverless/endpoints/model-caching
_RUNPOD_CACHE = Path("huggingface-cache", "hub")
_ON_VOLUME = "models"
_MOST_FILES = 10_000
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, and what it is called in the log.

    any_snapshot: with no `refs/main` the only snapshot will do (the platform's own cache).
    """

    label: str
    folder: Path
    any_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look, in order; the last is the folder that downloads go to.

    volume: what is below it may be half of a copy, so it is checked thoroughly.
    """

    look: tuple[Place, ...]
    volume: Path

    @property
    def downloads(self) -> Path:
        """The folder that downloads go to, and are found in."""
        return self.look[-1].folder

    def only_downloads(self) -> Places:
        """The same, but looked for nowhere else."""
        return replace(self, look=self.look[-1:])


def places(*, models_dir: Path | None, baked: Path, volume: Path, local: Path) -> Places:
    """The image first, then the platform's cached models, then the volume or the local folder.

    models_dir is looked in before all. The volume counts when its folder is there.
    """
    there = volume.is_dir()
    downloads = volume / _ON_VOLUME if there else local
    look = [Place("MODELS_DIR", models_dir)] if models_dir is not None else []
    look.append(Place("the image", baked))
    if there:
        look.append(Place("the cached models", volume / _RUNPOD_CACHE, any_snapshot=True))
    look.append(Place("the volume" if there else "the local folder", downloads))
    return Places(tuple(look), volume)


def find(source: Source, look: Places, log: Callable[[str], None]) -> Path | None:
    """Find a complete model; what is there but not complete is logged and passed over.

    Of a path the file or folder must be complete: else ModelUnavailable.
    """
    if isinstance(source, LocalPath):
        check(source.path, thorough=source.path.is_relative_to(look.volume))
        return source.path
    for place in look.look:
        try:
            path = _in_place(source, place)
            if path is not None:
                check(path, thorough=path.is_relative_to(look.volume))
                return path
        except ModelUnavailable as error:
            log(f"the model in {place.label} can't be used: {error}")
    return None


def repository_folder(downloads: Path, repository_id: str) -> Path:
    """Where a repository is kept."""
    return downloads / f"models--{repository_id.replace('/', '--')}"


def url_file(downloads: Path, source: Url) -> Path:
    """Where a URL's file is kept; its digest is its identity."""
    return downloads / "urls" / source.sha256[:16] / source.name


def keep(downloads: Path, source: Repository, commit: str, files: Sequence[Listed]) -> None:
    """Make a downloaded commit the one that the source's revision names; its listing is kept too.

    The listing tells a later start what the whole repository has, without asking the hub.
    """
    kept = repository_folder(downloads, source.id)
    _write(_listing_file(kept, commit), json.dumps([asdict(file) for file in files]))
    _write(kept / "refs" / (source.revision or _MAIN), commit)


def _write(path: Path, text: str) -> None:
    """Replace a small file at once for every reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _listing_file(kept: Path, commit: str) -> Path:
    """Where the listing of a commit is kept."""
    return kept / "listings" / f"{commit}.json"


def _in_place(source: Name | Repository | Url, place: Place) -> Path | None:
    """The model's path in one folder, None when it is not there."""
    if isinstance(source, Name):
        return _named(source.name, place.folder)
    if isinstance(source, Url):
        path = url_file(place.folder, source)
        return path if path.exists() else None
    folder = _snapshot(source, place)
    if folder is None:
        return None
    kept = _kept_listing(folder)
    files = _listed(folder) if kept is None else kept
    chosen = choose(files, source.pattern, projector=source.projector)
    if not all(_has(folder, file) for file in chosen.files):
        return None
    return folder / chosen.main if chosen.main else folder


def _named(name: str, folder: Path) -> Path | None:
    """A file or a folder by its name; of a split model its first part."""
    if not name.strip("."):
        return None
    for path in (folder / name, folder / f"{name}{GGUF}"):
        if path.is_file() or (path.is_dir() and path != folder):
            return path
    return next(iter(sorted(folder.glob(f"{name}-00001-of-?????{GGUF}"))), None)


def _snapshot(source: Repository, place: Place) -> Path | None:
    """The folder of the wanted revision, None when there is none."""
    kept = repository_folder(place.folder, source.id)
    snapshots = kept / "snapshots"
    wanted = source.revision or _MAIN
    try:
        commit = (kept / "refs" / wanted).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = source.revision or ""
    if commit and "/" not in commit and (snapshots / commit).is_dir():
        return snapshots / commit
    if source.revision is not None:
        return None
    there = sorted(snapshots.iterdir()) if place.any_snapshot and snapshots.is_dir() else []
    if len(there) == 1:
        return there[0]
    plain = place.folder / source.id
    return plain if plain.is_dir() else None


def link(source: Repository, path: Path, look: Places) -> Path:
    """A name for a LoRA's folder, beside those of others: an engine takes them from one folder.

    Without a dot, which a module's name in PyTorch can't have. The folder itself where no link can
    be made.
    """
    name = f"{source.id.rpartition('/')[2]}-{path.name[:7]}".replace(".", "_")
    linked = look.downloads.absolute() / "loras" / name
    made = linked.with_name(f"{name}.{os.getpid()}")
    try:
        linked.parent.mkdir(parents=True, exist_ok=True)
        made.unlink(missing_ok=True)
        made.symlink_to(path)
        made.replace(linked)
    except OSError:
        return path
    return linked


def _kept_listing(snapshot: Path) -> list[Listed] | None:
    """The listing that a download left for a snapshot, None without one."""
    path = _listing_file(snapshot.parent.parent, snapshot.name)
    try:
        return [Listed(**file) for file in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None


def _has(folder: Path, file: Listed) -> bool:
    """Whether a file is there with all its bytes."""
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size


def _listed(folder: Path) -> Iterator[Listed]:
    """The files of a folder as a repository's listing; dead links are not there."""
    count = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            count += 1
            if count > _MOST_FILES:
                return
            if path.is_file():
                yield Listed(path.relative_to(folder).as_posix(), path.stat().st_size)
