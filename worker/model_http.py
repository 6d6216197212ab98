"""The one HTTP client of all that huggingface_hub asks and fetches.

The library resumes, and its client follows redirects and keeps the token to its host. What it does
not do is done here for all of its requests: a limit to each wait; a look at the deadline between
any two reads (it takes data in blocks of 10 MiB, so a trickle would go on for ever); no redirect
out of https; and every fault as Refused or Broken, so that there is one way of trying again (it
would wait as long as a server asks, and give up on a connection that is reset).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx2

from worker.model_retry import Broken, Refused

_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (httpx2.TimeoutException, "no bytes came for too long"),
    (socket.gaierror, "the host's name can't be found, there may be no network"),
    (ssl.SSLCertVerificationError, "the server's certificate can't be verified"),
    (httpx2.ConnectError, "the server can't be reached, there may be no network"),
    (httpx2.TooManyRedirects, "the server redirects without end"),
    (httpx2.InvalidURL, "the address is not one"),
    (httpx2.UnsupportedProtocol, "the address is not one"),
)


class Client(httpx2.Client):
    """stall: seconds of each wait. check: called between reads, may raise. schemes: allowed."""

    def __init__(self, *, stall: float, check: Callable[[], None], schemes: set[str]) -> None:
        super().__init__(follow_redirects=True, event_hooks={"request": [self._allow]})
        self._stall, self._check, self._schemes = stall, check, schemes

    def send(self, request: httpx2.Request, *, stream: bool = False, **how: Any) -> httpx2.Response:
        """Send a request; raises Refused, Broken, and what `check` raises."""
        request.extensions["timeout"] = httpx2.Timeout(self._stall).as_dict()
        with faults():
            response = super().send(request, stream=True, **how)
        if response.is_error:
            response.close()
            raise _refused(response)
        response.stream = _Reads(response.stream, self._check)
        if not stream:
            with closing(response):
                response.read()
        return response

    def _allow(self, request: httpx2.Request) -> None:
        """Look at each address on the way, those of redirects too."""
        if request.url.scheme not in self._schemes:
            raise Broken("the server redirects to an address that is not https")


class _Reads(httpx2.SyncByteStream):
    """A body, with a check at each read from the network and its faults as Broken."""

    def __init__(self, body: Any, check: Callable[[], None]) -> None:
        self._body, self._check = body, check

    def __iter__(self) -> Iterator[bytes]:
        with faults():
            for data in self._body:
                self._check()
                yield data

    def close(self) -> None:
        """Let the connection go."""
        self._body.close()


def retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header; None without one, or when it is a date."""
    return float(text) if text and text.strip().isdecimal() and len(text) < 10 else None


def _refused(response: httpx2.Response) -> Refused:
    """The error of an answer, with the hub's own words in its headers.

    https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/utils/_http.py
    """
    return Refused(
        response.status_code,
        code=response.headers.get("X-Error-Code", ""),
        message=response.headers.get("X-Error-Message", ""),
        retry_after=retry_after(response.headers.get("Retry-After")),
    )


@contextmanager
def faults() -> Iterator[None]:
    """Turn the faults of the network into words, without addresses."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise Broken(_cause(error)) from None


def _cause(error: BaseException) -> str:
    """Say what happened, by the error and what caused it."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for kind, words in _CAUSES:
        if any(isinstance(one, kind) for one in chain):
            return words
    return "the connection broke"
