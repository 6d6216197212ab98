"""What a Hugging Face repository has, how its files are had, and its refusals as sentences.

huggingface_hub is imported only when something is to be downloaded: it takes half a second. It
lists and transfers; only its `hf_hub_download` is not used, which (version 2.4) starts a file that
was cut off from its beginning, under a new temporary name, and checks no digest
(`_download_to_tmp_and_move`, https://github.com/huggingface/huggingface_hub).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.model_errors import ModelUnavailable
from worker.model_files import Listed, is_inside
from worker.model_retry import Broken, Clock, Refused, persist
from worker.model_source import Repository

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetFileData

ENDPOINT = "https://huggingface.co"
_SILENT = 100
# Read at the libraries' import, there is no other switch. They would ask the public host about the
# tools that run beside them, whatever the endpoint is (`utils/_detect_agent.py`, version 2.4), send
# figures of each transfer, and write a log to the home folder, or to stdout, where the result goes.
_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "HF_XET_LOG_DEST": os.devnull,
}


@dataclass(frozen=True, slots=True)
class Hub:
    """Where repositories are, with the token, "" for none; offline: nothing may be asked."""

    token: str = field(default="", repr=False)
    endpoint: str = ENDPOINT
    offline: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a download."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit."""

    commit: str
    files: tuple[Listed, ...]


@contextmanager
def connected(hub: Hub, clock: Clock, check: Callable[[], None]) -> Iterator[None]:
    """Have huggingface_hub ask through our client within the block; check: called between reads."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from huggingface_hub import set_client_factory  # noqa: PLC0415 - see above
    from huggingface_hub.utils import logging  # noqa: PLC0415 - as above
    from huggingface_hub.utils._http import default_client_factory  # noqa: PLC0415 - as above

    from worker.model_http import Client  # noqa: PLC0415 - as above

    logging.set_verbosity(_SILENT)  # its lines have addresses, which may hold keys
    schemes = {"https", hub.endpoint.partition("://")[0]}
    set_client_factory(lambda: Client(stall=clock.patience.stall, check=check, schemes=schemes))
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


def listing(source: Repository, hub: Hub, clock: Clock) -> Listing:
    """Ask the hub for a repository's files; raises ModelUnavailable with one clear sentence."""
    if hub.offline:
        raise ModelUnavailable(
            f"the model {source.id} is not on the disk or not complete, and HF_HUB_OFFLINE forbids "
            "to download it"
        )
    if not hub.token.isprintable() or not hub.token.isascii() or " " in hub.token:
        raise ModelUnavailable("HF_TOKEN has a character that no token has; set it anew")
    try:
        return persist(
            lambda: _ask(source, hub),
            clock,
            what="asking Hugging Face for the model's files",
            progress=lambda: 0,
        )
    except Refused as error:
        raise ModelUnavailable(explain(error, source, with_token=bool(hub.token))) from error


def file_url(source: Repository, commit: str, path: str, hub: Hub) -> str:
    """Where a file of a commit is."""
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - see the module's docstring

    return hf_hub_url(source.id, path, revision=commit, endpoint=hub.endpoint)


def xet_data(url: str, hub: Hub) -> XetFileData | None:
    """Where the file is in Xet storage; None when it is not, or HF_HUB_DISABLE_XET is set.

    Raises Refused and Broken.
    """
    from huggingface_hub import get_hf_file_metadata  # noqa: PLC0415 - see the module's docstring
    from huggingface_hub.utils._runtime import is_xet_available  # noqa: PLC0415 - as above

    from worker.model_http import faults  # noqa: PLC0415 - as above

    if not is_xet_available():
        return None
    with faults():  # it follows redirects itself
        facts = get_hf_file_metadata(url, token=hub.token or False, endpoint=hub.endpoint)
    return facts.xet_file_data


def explain(error: Refused, source: Repository, *, with_token: bool) -> str:
    """Say what a refusal means and what to do about it."""
    name, status = source.id, error.status
    if error.passing:
        return _passing(error, name)
    token = "with the account of HF_TOKEN" if with_token else "and set HF_TOKEN"
    by_code = {
        "GatedRepo": f"the repository {name} is gated; accept its terms {token}",
        "RevisionNotFound": f"the repository {name} has no revision {source.revision or 'main'!r}",
        "EntryNotFound": f"a file of the repository {name} is not there any more; try again",
    }
    if error.code in by_code:
        return by_code[error.code]
    if status == 401 and with_token:
        return "Hugging Face does not accept HF_TOKEN; make a new token"
    if status in {401, 404}:
        hint = "may not read it" if with_token else "is not set"
        return f"there is no repository {name}, or it is private and HF_TOKEN {hint}"
    return f"Hugging Face refuses {name} (status {status}); check what HF_TOKEN may read"


def _passing(error: Refused, name: str) -> str:
    """Say that it is no fault of the settings."""
    if error.status == 429:
        wait = "later" if error.retry_after is None else f"in {error.retry_after:g} s"
        return f"Hugging Face limits the rate of requests; try again {wait}, or set HF_TOKEN"
    return f"Hugging Face can't serve {name} now (status {error.status}); try again later"


def _ask(source: Repository, hub: Hub) -> Listing:
    """Ask once."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - see the module's docstring

    api = HfApi(endpoint=hub.endpoint, token=hub.token or False)
    try:
        info = api.model_info(source.id, revision=source.revision, files_metadata=True)
    except (ValueError, TypeError, KeyError):
        raise Broken("its answer makes no sense") from None
    if not info.sha:
        raise Broken("its answer makes no sense")
    return Listing(
        info.sha,
        tuple(
            Listed(
                file.rfilename,
                file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                git_sha1=None if file.lfs else file.blob_id,
            )
            for file in info.siblings or ()
            if file.size is not None and is_inside(file.rfilename)
        ),
    )
