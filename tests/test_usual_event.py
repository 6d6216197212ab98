"""An event of which only the text is parsed is what it would be if it were parsed whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import JSON, PROFILE
from worker.assemble import assembler_for
from worker.events import Event
from worker.usual_event import UsualEvent

CHAT = "/v1/chat/completions"
TEXTS = st.text(max_size=5) | st.sampled_from(['"', "\\", "\n", "日本🎉", '"content":"', "\ud83d"])


def chunk(text: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], "id": "c", **more}


def delta(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = event["choices"][0]["delta"]
    return found


def taught(event: dict[str, Any], data: str) -> UsualEvent:
    usual = UsualEvent(after=0)
    usual.learn(data, event, delta(event), "content")
    return usual


def test_the_text_of_an_event_like_the_one_before_is_found() -> None:
    usual = taught(chunk("a"), json.dumps(chunk("a")))

    assert 'b"\n' == usual.text_of(json.dumps(chunk('b"\n')))


@pytest.mark.parametrize(
    "other",
    [
        json.dumps(chunk("b", id="d")),
        json.dumps(chunk(None)),
        json.dumps(chunk("b", usage=1)),
        json.dumps(chunk("b"))[:-1],
        json.dumps(chunk("b")).replace('"b"', '"b", "role": "x"'),
        json.dumps(chunk("b")).replace('"b"', '"b\n"'),
        json.dumps(chunk("b")).replace('"b"', '"b'),
        "",
    ],
)
def test_any_other_event_is_not_taken_for_a_usual_one(other: str) -> None:
    usual = taught(chunk("a"), json.dumps(chunk("a")))

    assert None is usual.text_of(other)


@pytest.mark.parametrize("elsewhere", ['{"content": "%s"', '{"x": {"content": "%s"}'])
def test_the_same_text_elsewhere_is_not_mistaken(elsewhere: str) -> None:
    wire = elsewhere + ', "choices": [{"index": 0, "delta": {"content": "%s"}}]}'
    data = wire % ("a", "a")
    usual = taught(json.loads(data), data)

    assert [None, None] == [usual.text_of(wire % texts) for texts in (("b", "a"), ("a", "b"))]


@PROFILE
@given(
    TEXTS,
    TEXTS,
    st.dictionaries(st.sampled_from(["content", "id", "delta"]) | TEXTS, JSON, max_size=3),
    st.booleans(),
    st.tuples(st.integers(0, 200), st.text(max_size=3)),
)
def test_what_is_found_is_what_parsing_the_whole_gives(
    first: str, second: str, more: dict[str, Any], ascii_only: bool, change: tuple[int, str]
) -> None:
    place, inserted = change
    event = {**more, **chunk(first)}
    data = json.dumps(event, ensure_ascii=ascii_only)
    usual = taught(json.loads(data), data)

    other = json.dumps({**more, **chunk(second)}, ensure_ascii=ascii_only)
    for changed in (
        other,
        other[:place] + inserted + other[place:],
        other[:place] + other[place + 1 :],
    ):
        text = usual.text_of(changed)
        if text is not None:
            whole = json.loads(changed)
            assert text == delta(whole)["content"]
            delta(whole)["content"] = first
            assert json.dumps(json.loads(data)) == json.dumps(whole)


@PROFILE
@given(
    st.lists(
        st.tuples(TEXTS, st.booleans(), st.integers(0, 1), st.integers(7, 8)),
        min_size=8,
        max_size=40,
    )
)
def test_a_stream_is_assembled_as_without_that(
    pieces: list[tuple[str, bool, int, int]],
) -> None:
    """Each piece: its text, how it is written, its choice, and when it was made."""
    assembler = assembler_for(CHAT, hide_usage=True)
    assert assembler is not None
    whole = {0: "", 1: ""}
    for text, ascii_only, index, created in pieces:
        whole[index] += text
        choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
        data = json.dumps({"choices": [choice], "created": created}, ensure_ascii=ascii_only)
        assert assembler.add(Event("", data))

    result = assembler.result(stopped=True)
    said = {choice["index"]: choice["message"]["content"] for choice in result["choices"]}
    assert {index: whole[index] for index in said} == said
    assert pieces[-1][3] == result["created"]


def test_the_first_events_are_not_learned_from() -> None:
    usual, event = UsualEvent(after=2), chunk("a")
    found = []
    for _ in range(3):
        usual.learn(json.dumps(event), event, delta(event), "content")
        found.append(usual.text_of(json.dumps(chunk("b"))))

    assert [None, None, "b"] == found


def test_a_stream_whose_events_all_differ_is_soon_given_up() -> None:
    usual = UsualEvent(after=0)
    for number in range(10):
        event = chunk("a", created=number)
        usual.learn(json.dumps(event), event, delta(event), "content")

    assert None is usual.text_of(json.dumps(chunk("b", created=9)))
