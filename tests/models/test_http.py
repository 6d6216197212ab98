"""Where redirects may lead."""

from __future__ import annotations

import pytest

from worker.model_http import next_url, retry_after, same_host
from worker.model_retry import Broken


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b", "https://host/b"),
        ("b", "https://host/a/b"),
        ("https://other/b", "https://other/b"),
    ],
)
def test_a_redirect_is_followed_within_https(location: str, target: str) -> None:
    assert target == next_url("https://host/a/x", location)


@pytest.mark.parametrize("location", ["http://host/a", "file:///etc/passwd", "ftp://host/a"])
def test_a_redirect_out_of_https_is_not(location: str) -> None:
    with pytest.raises(Broken, match="not https"):
        next_url("https://host/a", location)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://host/b", True),
        ("https://host:444/b", False),
        ("http://host/b", False),
        ("https://host.evil/b", False),
    ],
)
def test_a_token_stays_with_its_host(other: str, *, same: bool) -> None:
    assert same == same_host("https://host/a", other)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), (None, None), ("", None), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
def test_retry_after_is_read_in_seconds(text: str | None, seconds: float | None) -> None:
    assert seconds == retry_after(text)
