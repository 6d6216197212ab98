"""The user data folder that textgen is given: the checkout's own, with the worker's extension.

It is an overlay of links in a temporary folder, so that a checkout is never written to for the
worker's sake: it may be read-only, and shared by several workers.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from worker.errors import EngineStartFailed

_EXTENSIONS = "extensions"
# Its flags are read, checked and put on the command line by the worker.
_LEFT_OUT = (_EXTENSIONS, "CMD_FLAGS.txt")


def overlay(user_data: Path, name: str, extension: Path) -> Path:
    """Make an overlay of `user_data` with one more extension; remove it with `remove`.

    Raises EngineStartFailed when the temporary folder can't be written.
    """
    try:
        made = Path(tempfile.mkdtemp(prefix="webui-user-data-"))
    except OSError as error:
        raise EngineStartFailed(
            f"no temporary folder can be made for the engine's data: {error.strerror}; set TMPDIR"
        ) from error
    try:
        _link_all(user_data, made, leave_out=_LEFT_OUT)
        (made / _EXTENSIONS).mkdir()
        _link_all(user_data / _EXTENSIONS, made / _EXTENSIONS, leave_out=(name,))
        (made / _EXTENSIONS / name).symlink_to(extension, target_is_directory=True)
    except OSError as error:
        remove(made)
        raise EngineStartFailed(
            f"the engine's user data can't be linked: {error.strerror}"
        ) from error
    return made


def remove(made: Path) -> None:
    """Remove an overlay, not what its links lead to; what can't be removed stays."""
    shutil.rmtree(made, ignore_errors=True)


def _link_all(source: Path, target: Path, *, leave_out: tuple[str, ...]) -> None:
    """Link each entry of a folder, which may be missing."""
    if source.is_dir():
        for entry in source.iterdir():
            if entry.name not in leave_out:
                (target / entry.name).symlink_to(entry)
