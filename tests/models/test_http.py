"""Redirects, and what a server may ask for."""

from __future__ import annotations

import pytest

from tests.models.conftest import Machine
from tests.models.hub_server import FakeHub, Fault
from tests.models.test_fetch import FILE, fails
from worker.model_http import Client, retry_after
from worker.model_retry import Broken
from worker.model_source import Repository


def test_nothing_is_asked_without_https(hub: FakeHub) -> None:
    """But of a hub whose own address has none, as the one of the other tests."""
    client = Client(stall=1, check=lambda: None, schemes={"https"})
    with client, pytest.raises(Broken, match="not https"):
        client.get(hub.url)

    assert [] == hub.calls


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_a_redirect_is_followed_to_https_only(
    machine: Machine, tiny: Repository, target: str
) -> None:
    machine.hub.always[FILE] = Fault(status=302, headers={"Location": target})

    assert "the server redirects to an address that is not https" in fails(machine, tiny)


def test_redirects_without_end_are_told(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault(status=302, headers={"Location": "?again"})

    assert "the server redirects without end" in fails(machine, tiny)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), (None, None), ("", None), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
def test_retry_after_is_read_in_seconds(text: str | None, seconds: float | None) -> None:
    assert seconds == retry_after(text)
