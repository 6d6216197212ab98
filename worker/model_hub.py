"""What a Hugging Face repository has, and its refusals as sentences.

huggingface_hub is imported only when something is to be downloaded: it takes half a second. Its
files are not fetched with it: version 2.4 starts a file that was cut off from its beginning, checks
no digest, waits as long as a server asks and can't be cancelled (`_download_to_tmp_and_move` and
`http_backoff`, https://github.com/huggingface/huggingface_hub).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from worker.model_errors import ModelUnavailable
from worker.model_files import Listed, is_inside
from worker.model_http import retry_after
from worker.model_retry import Broken, Clock, Refused, persist
from worker.model_source import Repository

ENDPOINT = "https://huggingface.co"


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
            lambda: _ask(source, hub, clock.patience.stall),
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


def _ask(source: Repository, hub: Hub, timeout: float) -> Listing:
    """Ask once."""
    # Read at its import, there is no other switch: it would ask its public host about the tools
    # that run beside it, whatever the endpoint is (`utils/_detect_agent.py`, version 2.4).
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2  # noqa: PLC0415 - as below
    from huggingface_hub import HfApi  # noqa: PLC0415 - see the module's docstring
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - as above

    api = HfApi(endpoint=hub.endpoint, token=hub.token or False)
    try:
        info = api.model_info(
            source.id, revision=source.revision, files_metadata=True, timeout=timeout
        )
    except HfHubHTTPError as error:
        headers = error.response.headers
        raise Refused(
            error.response.status_code,
            code=headers.get("X-Error-Code", ""),
            message=headers.get("X-Error-Message", ""),
            retry_after=retry_after(headers.get("Retry-After")),
        ) from None
    except httpx2.TimeoutException:
        raise Broken("no answer came for too long") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
        raise Broken("it can't be reached, there may be no network") from None
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
