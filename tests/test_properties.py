"""Whatever callers and engines send: one outcome, valid JSON, and no crash, hang or leak.

RANDOM_EXAMPLES is how many each property is tried with (50; other ones at each run if it is set).
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.dialect import event as said
from tests import random_jobs
from tests.fuzz import (
    EVENTS,
    INDISCREET,
    INPUTS,
    JOBS,
    JSON,
    LIES,
    PROFILE,
    ROUTES,
    SECRET,
    STREAMED,
    Lie,
    World,
    check,
    check_sentence,
    world,
)
from worker.assemble import assembler_for
from worker.engines.textgen_routes import silent_failure
from worker.errors import InvalidJob, JobError
from worker.events import Event, EventDecoder
from worker.frames import END_FRAME, Merger, text_frame
from worker.job import parse_job
from worker.plain import plain
from worker.stream import MAX_CHUNK_BYTES, Channel

pytestmark = pytest.mark.timeout(0 if PROFILE.max_examples > 50 else 60)


@pytest.fixture(scope="module")
def whole() -> Iterator[World]:
    with world() as made:
        yield made


# Jobs


@PROFILE
@given(INPUTS)
def test_an_input_is_a_request_or_one_sentence(job_input: Any) -> None:
    try:
        request = parse_job(job_input)
    except JobError as error:
        check_sentence(str(error).strip() or "?", echoes=True)
    else:
        assert request.path.startswith("/v1/") or request.blocking
        assert not set(request.path) & set("?#%@\\ \r\n")
        assert ".." not in request.path


@PROFILE
@given(JOBS)
def test_any_job_on_an_honest_engine_has_an_outcome(whole: World, job: dict[str, Any]) -> None:
    outcome, _ = whole.run(job)

    check(outcome, echoes=True)
    assert whole.slots.idle


@PROFILE
@given(st.sampled_from(ROUTES), st.booleans(), LIES)
def test_any_answer_of_an_engine_has_an_outcome(
    whole: World, route: str, stream: bool, lie: Lie
) -> None:
    outcome, _ = whole.run(job_for(route, stream=stream), lie)

    check(outcome)
    assert whole.slots.idle


def job_for(route: str, **more: Any) -> dict[str, Any]:
    payload = {"prompt": "Hello", "user_input": "Hello", "max_new_tokens": 5, **more}
    method = "GET" if route == "/v1/models" else "POST"
    return {"id": "j1", "input": {"api": {"method": method, "endpoint": route}, "payload": payload}}


@pytest.mark.parametrize(("engine", "jobs"), [("embedded", 500), ("current", 500), ("classic", 50)])
def test_plain_random_jobs_are_answered_well(engine: str, jobs: int) -> None:
    assert 0 == random_jobs.run(1, 0, jobs, engine)


@pytest.mark.parametrize("stop_type", [[], {}, 1])
def test_a_reason_to_stop_of_another_kind_ends_a_generation_all_the_same(
    whole: World, stop_type: Any
) -> None:
    end = said({"content": "x", "stop": True, "stop_type": stop_type}).encode()
    outcome, _ = whole.run(job_for("/generate"), Lie(kind="text/event-stream", body=end))

    assert outcome.error is None


@pytest.mark.parametrize("choices", ["text", 1, {"text": "x"}, ["text"], [None], [{"message": 1}]])
def test_an_answer_of_textgens_of_another_shape_is_taken_as_it_is(choices: Any) -> None:
    answer = {"choices": choices, "usage": 1.5}

    assert silent_failure("/v1/chat/completions", {}, answer, 100) is None


@pytest.mark.parametrize("route", ["/generate", "/chat", "/token-count", "/v1/completions"])
def test_half_a_character_is_refused(whole: World, route: str) -> None:
    outcome, _ = whole.run(job_for(route, prompt="\ud800", user_input="\ud800"))

    assert (400, True) == (outcome.status, "half of a character" in (outcome.error or ""))


@pytest.mark.parametrize("depth", [100, 900, 2_000, 100_000])
@pytest.mark.parametrize("route", ["/generate", "/v1/completions", "/v1/embeddings"])
def test_a_job_of_any_depth_has_an_outcome(whole: World, route: str, depth: int) -> None:
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]

    check(whole.run(job_for(route, extra=deep, seed=deep))[0])
    check(whole.run({"id": "j1", "input": deep})[0])


@pytest.mark.parametrize("route", ["/generate", "/chat", "/token-count", "/v1/completions"])
def test_a_huge_job_is_refused_with_its_size(whole: World, route: str) -> None:
    huge = "\0" * 4_000_000  # six times as long in JSON

    outcome, _ = whole.run(job_for(route, prompt=huge, user_input=huge, truncation_length=9_999))

    check(outcome)
    assert ("at most 20000000 can be sent" in (outcome.error or ""), 413) == (True, outcome.status)


# Answers


@PROFILE
@given(st.lists(EVENTS), st.lists(st.integers(1, 9), min_size=1), st.binary(max_size=8))
def test_a_decoder_gives_the_same_events_however_they_are_cut(
    texts: list[str], cuts: list[int], rest: bytes
) -> None:
    wire = "".join(texts).encode("utf-8", "surrogatepass") + rest

    assert decoded(wire, [len(wire) or 1]) == decoded(wire, cuts)


def decoded(wire: bytes, cuts: list[int]) -> list[Event] | str:
    """All events of these bytes, fed in pieces of these lengths; or the error's text."""
    decoder, events, start, number = EventDecoder(), list[Event](), 0, 0
    try:
        while start < len(wire):
            length = cuts[number % len(cuts)]
            events += decoder.feed(wire[start : start + length])
            start, number = start + length, number + 1
    except JobError as error:
        return str(error)
    return events


@PROFILE
@given(st.sampled_from(STREAMED), st.lists(EVENTS, max_size=6), st.booleans())
def test_an_assembler_raises_nothing_but_job_errors(
    route: str, texts: list[str], stopped: bool
) -> None:
    assembler = assembler_for(route, hide_usage=True)
    assert assembler is not None
    try:
        for event in EventDecoder().feed("".join(texts).encode("utf-8", "replace")):
            assembler.add(event)
            assert isinstance(assembler.partial(), str)
        assert isinstance(assembler.result(stopped=stopped), dict)
    except JobError as error:
        check_sentence(str(error))


@PROFILE
@given(st.text(st.characters()))
def test_plain_text_is_one_bounded_line_without_secrets(said: str) -> None:
    line = plain(f"{said} {INDISCREET} {said}")

    assert len(line) <= 300
    assert len(line.splitlines()) <= 1
    assert SECRET not in line
    assert "/root/models" not in line
    assert "Traceback" not in line


@PROFILE
@given(JSON)
def test_an_engines_object_reaches_the_caller_or_is_an_error(whole: World, said: Any) -> None:
    lie = Lie(body=json.dumps({"data": said}).encode())
    outcome, _ = whole.run(job_for("/v1/embeddings"), lie)

    check(outcome)
    if outcome.error is None:
        assert {"output": {"data": said}} == json.loads(outcome.body)


# Streams

_PIECES = st.lists(st.text(max_size=30), max_size=20)
_TAKES = st.lists(st.booleans(), min_size=1, max_size=20)


@PROFILE
@given(_PIECES, _TAKES)
def test_a_channel_loses_and_reorders_no_text(pieces: list[str], takes: list[bool]) -> None:
    frames = asyncio.run(through_a_channel([text_frame(piece) for piece in pieces], takes))

    texts = "".join(frame.get("text", "") for frame in frames)
    assert ("".join(pieces), list(range(len(frames)))) == (
        texts,
        [frame["message_num"] for frame in frames],
    )
    assert "stream_end" == frames[-1]["event"]


async def through_a_channel(events: list[Any], takes: list[bool]) -> list[Any]:
    """All chunks of these events and an end, taken after an event where `takes` says so."""
    channel = Channel(Merger(), limit=10**9)
    chunks: list[Any] = []
    for number, event in enumerate(events):
        await channel.put(event, 1)
        if takes[number % len(takes)] and event.get("text"):
            chunks += await channel.take()
    await channel.put(END_FRAME, 1)
    channel.close()
    while more := await channel.take():
        chunks += more
    return chunks


@PROFILE
@given(st.lists(st.integers(0, 700_000), max_size=8), st.sampled_from('aé日🎉"'))
def test_joined_events_are_whole_and_in_order(sizes: list[int], character: str) -> None:
    events = [f"data: {number}{character * (size // 2)}\n\n" for number, size in enumerate(sizes)]
    chunks = Merger()(events) if events else []

    assert "".join(events) == "".join(chunks)
    assert all(chunk.endswith("\n\n") for chunk in chunks)
    allowed = max([MAX_CHUNK_BYTES, *(len(event.encode()) + 20 for event in events)])
    assert all(len(json.dumps(chunk, ensure_ascii=False).encode()) <= allowed for chunk in chunks)


@PROFILE
@given(st.lists(st.integers(0, 400_000), max_size=4), st.sampled_from(["a", "\0", "日", '"']))
def test_text_frames_are_under_the_platforms_limit(sizes: list[int], character: str) -> None:
    chunks = Merger()([*(text_frame(character * size) for size in sizes), END_FRAME])

    assert character * sum(sizes) == "".join(chunk.get("text", "") for chunk in chunks)
    assert all(len(json.dumps(chunk).encode()) <= MAX_CHUNK_BYTES for chunk in chunks)


def test_a_number_too_long_to_print_is_refused() -> None:
    with pytest.raises(InvalidJob):
        parse_job(10**5000)
