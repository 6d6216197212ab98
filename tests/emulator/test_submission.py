"""What a client may send."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from emulator.errors import Refused
from emulator.jobs import Policy
from emulator.limits import Limits
from emulator.rates import Rates
from emulator.submission import milliseconds, parse_submission
from emulator.worker_api import read_result, split_chunk
from tests.emulator.helpers import Clock


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"input": NaN}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", 'the key "input"'),
        (b'{"input": null}', 'the key "input"'),
        (b'{"input": 1, "policy": 1}', "policy must be"),
        (b'{"input": 1, "policy": {"ttl": 9999}}', "policy.ttl must be from 10000"),
        (b'{"input": 1, "policy": {"ttl": true}}', "policy.ttl must be"),
        (b'{"input": 1, "policy": {"executionTimeout": "5s"}}', "policy.executionTimeout must be"),
        (b'{"input": 1, "webhook": "ftp://x"}', "webhook must be"),
        (b'{"input": 1, "webhook": "http://[x"}', "webhook must be"),
        (b'{"input": 1, "webhook": 7}', "webhook must be"),
    ],
)
def test_a_wrong_body_is_refused_with_what_to_send(body: bytes, sentence: str) -> None:
    with pytest.raises(Refused, match=re.escape(sentence)) as refused:
        parse_submission(body, Limits())
    assert 400 == refused.value.status


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, Policy(600, 86_400)),
        ({"lowPriority": True}, Policy(600, 86_400)),
        ({"executionTimeout": 5000, "ttl": 10_000}, Policy(5, 10)),
    ],
)
def test_the_policy_is_the_documented_default_or_what_was_sent(
    policy: Any, expected: Policy
) -> None:
    body = json.dumps({"input": {}, "policy": policy}).encode()
    assert expected == parse_submission(body, Limits()).policy


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "²", "9" * 16])
def test_milliseconds_are_a_whole_number(text: str) -> None:
    with pytest.raises(Refused):
        milliseconds(text, "wait", 1)


def test_a_text_chunk_over_the_limit_is_split_without_loss() -> None:
    pieces = split_chunk("ä" * 100, 200, 24)
    assert "ä" * 100 == "".join(pieces)
    assert all(len(json.dumps(piece)) <= 24 for piece in pieces)


def test_another_chunk_over_the_limit_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        split_chunk({"text": "x" * 100}, 110, 24)
    assert 400 == refused.value.status


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"output": None}, {"output": None}),
        ({}, {}),
        ({"error": "no"}, {"error": "no"}),
        ({"error": "no", "output": {"status": 404}}, {"error": "no", "output": {"status": 404}}),
        ({"error": ""}, {}),
        ({"error": {"message": "no"}}, {}),
    ],
)
def test_only_a_text_is_an_error(body: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected == read_result(body, "job")


def test_more_requests_than_the_rate_are_refused_until_the_window_is_over() -> None:
    clock = Clock()
    rates = Rates(clock, {"run": (2, None)})
    for _ in range(2):
        rates.enter("run")
    with pytest.raises(Refused) as refused:
        rates.enter("run")
    assert 429 == refused.value.status
    clock.now += 10
    rates.enter("run")


def test_more_requests_at_once_than_allowed_are_refused_until_one_leaves() -> None:
    rates = Rates(Clock(), {"run": (9, 1)})
    rates.enter("run")
    with pytest.raises(Refused) as refused:
        rates.enter("run")
    assert 429 == refused.value.status
    rates.leave("run")
    rates.enter("run")
