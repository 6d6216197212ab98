"""One HTTP GET of a part of a file, with every fault as Refused or Broken.

Redirects are followed here: never from https to anything else, and the token stays with its host.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

from worker.model_retry import Broken, Refused

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_SECRET = "authorization"  # noqa: S105 - a header's name


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes from `start` of a file with `total` bytes (None: not said); read gives some of them."""

    start: int
    total: int | None
    body: Any

    def read(self, most: int) -> bytes:
        """Wait for bytes, at most so many; b"" at the end. Raises Broken."""
        with _faults():
            data: bytes = self.body.read1(most)
            return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller."""

    def redirect_request(self, *_arguments: Any) -> None:
        """Follow none."""


@contextmanager
def get(url: str, headers: Mapping[str, str], start: int, timeout: float) -> Iterator[Answer]:
    """Ask for a file from byte `start` on; timeout is for each wait, in seconds.

    A server may send the whole file all the same: look at the answer's start. Raises Refused, and
    Broken for all faults of the network.
    """
    wanted = {**headers, "User-Agent": "worker"}
    if start:
        wanted["Range"] = f"bytes={start}-"
    with _faults():
        response = _open(url, wanted, timeout)
    try:
        yield Answer(*_span(response.status, response.headers), response)
    finally:
        response.close()


def next_url(url: str, location: str) -> str:
    """Where a redirect leads; Broken when that is less safe than where it came from."""
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme != "https" and scheme != urlsplit(url).scheme:
        raise Broken("the server redirects to an address that is not https")
    return target


def same_host(url: str, other: str) -> bool:
    """Whether a token for one URL may go to the other."""
    return urlsplit(url)[:2] == urlsplit(other)[:2]


def retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header; None without one, or when it is a date."""
    return float(text) if text and text.strip().isdecimal() and len(text) < 10 else None


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:
    """Open the URL that the redirects end at."""
    opener = urllib.request.build_opener(_NoRedirect)
    for _ in range(_MOST_REDIRECTS):
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - https or the endpoint
        try:
            return opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            error.close()
            target = error.headers.get("Location")
            if error.code not in _REDIRECTS or not target:
                raise _refused(error.code, error.headers) from None
        target = next_url(url, target)
        if not same_host(url, target):
            headers = {name: v for name, v in headers.items() if name.lower() != _SECRET}
        url = target
    raise Broken("the server redirects without end")


def _refused(status: int, headers: Message) -> Refused:
    """The error of an answer, with the hub's own words in its headers.

    https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/utils/_http.py
    """
    return Refused(
        status,
        code=headers.get("X-Error-Code", ""),
        message=headers.get("X-Error-Message", ""),
        retry_after=retry_after(headers.get("Retry-After")),
    )


def _span(status: int, headers: Message) -> tuple[int, int | None]:
    """First byte and the file's size of an answer."""
    if status == http.client.PARTIAL_CONTENT:
        unit, _, span = headers.get("Content-Range", "").partition(" ")
        first, _, rest = span.partition("-")
        total = rest.rpartition("/")[2]
        if unit != "bytes" or not first.isdecimal():
            raise Broken("the server's answer makes no sense")
        return int(first), int(total) if total.isdecimal() else None
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


@contextmanager
def _faults() -> Iterator[None]:
    """Turn the faults of the network into words."""
    try:
        yield
    except urllib.error.URLError as error:
        raise Broken(_cause(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Broken(_cause(error)) from None


def _cause(error: object) -> str:
    """Say what happened without addresses."""
    if isinstance(error, TimeoutError):
        return "no bytes came for too long"
    if isinstance(error, socket.gaierror):
        return "the host's name can't be found, there may be no network"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the server's certificate can't be verified"
    if isinstance(error, ConnectionRefusedError):
        return "the server can't be reached"
    return "the connection broke"
