"""The pure parts of the command line."""

from __future__ import annotations

import pytest

from cli.chunks import TextStream, text_of_output
from cli.follow import Ended, Waiting
from cli.percentiles import percentile, summary
from cli.terminal import describe_wait, printable
from cli.tokens import told


def chat(reply: str) -> dict[str, object]:
    """A frame of a chat."""
    return {"event": "text_stream", "history": {"internal": [["Hi", reply]], "visible": []}}


def test_a_chat_s_frames_give_what_is_new_in_each() -> None:
    stream = TextStream()

    assert ["Wel", "come", ""] == [
        stream.feed(chat(text)) for text in ("Wel", "Welcome", "Welcome")
    ]


def test_a_reply_that_begins_anew_is_shown_whole() -> None:
    stream = TextStream()
    stream.feed(chat("Wel"))

    assert "\nGood day" == stream.feed(chat("Good day"))


def test_events_cut_anywhere_give_their_text() -> None:
    stream = TextStream()
    event = 'data: {"choices": [{"delta": {"content": "größer"}}]}\n\ndata: [DONE]\n\n'

    assert "größer" == "".join(stream.feed(character) for character in event)


@pytest.mark.parametrize("chunk", [None, 3, [], {"event": "stream_end"}, "data: [1]\n\n", "x\n\n"])
def test_a_chunk_without_text_gives_none(chunk: object) -> None:
    assert "" == TextStream().feed(chunk)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"results": [{"text": "a"}]}, "a"),
        ([{"results": [{"text": "a"}]}], "a"),
        ({"results": [{"history": {"internal": [["b", "a"]]}}]}, "a"),
        ({"choices": [{"message": {"content": "a"}}]}, "a"),
        ({"choices": [{"text": "a"}]}, "a"),
        ({"result": "a"}, "a"),
        ({"results": [{"tokens": 5}]}, None),
        ({"results": "success"}, None),
        ({"data": []}, None),
        (None, None),
    ],
)
def test_the_text_of_an_output(output: object, text: str | None) -> None:
    assert text == text_of_output(output)


def test_nearest_rank_percentiles() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]

    assert [20.0, 20.0, 35.0, 50.0] == [percentile(values, rank) for rank in (30, 40, 50, 100)]


def test_nothing_measured_has_no_summary() -> None:
    assert None is summary([])


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        ({"initializing": 1}, "a cold start, 1 worker(s) initializing"),
        ({"throttled": 2}, "2 worker(s) throttled, no machine is free"),
        ({"running": 1}, "1 worker(s) busy with other jobs"),
        ({}, "no worker yet, one has to be started"),
    ],
)
def test_a_queued_job_says_what_it_waits_for(workers: dict[str, int], says: str) -> None:
    waiting = Waiting("IN_QUEUE", 12.3, {"workers": workers})

    assert f"IN_QUEUE 12 s: {says}" == describe_wait(waiting)


def test_a_model_s_text_can_t_drive_the_terminal() -> None:
    assert "a]0;title\tb\n" == printable("a\x1b]0;title\x07\tb\n\x9b")


@pytest.mark.parametrize(
    ("output", "tokens"),
    [({"usage": {"completion_tokens": 7}}, 7), ({"results": []}, None), (None, None)],
)
def test_an_openai_answer_tells_its_tokens(output: object, tokens: int | None) -> None:
    assert tokens == told(output)


@pytest.mark.parametrize(
    ("first", "tokens", "rate"),
    [(1.0, 11, 5.0), (None, 8, 4.0), (3.0, 11, None), (1.0, 1, None), (1.0, None, None)],
)
def test_a_rate_is_of_the_time_in_which_the_tokens_came(
    first: float | None, tokens: int | None, rate: float | None
) -> None:
    ended = Ended("j", {"executionTime": 2000}, queued=0.0, first=first, total=3.0)

    assert rate == ended.tokens_per_second(tokens)
