"""Stream events reach the platform at once, whole, in order and within its limits."""

import asyncio
import json
from typing import Any

import pytest

from worker.frames import END_FRAME, Merger, history_frame, text_frame
from worker.stream import MAX_CHUNK_BYTES, Channel


def frame(number: int, **rest: Any) -> dict[str, Any]:
    return {"event": "text_stream", "message_num": number, **rest}


async def test_everything_put_since_the_last_take_comes_as_one_chunk() -> None:
    channel = Channel(Merger())
    await channel.put("data: 1\n\n", 9)
    first = await channel.take()
    await channel.put("data: 2\n\n", 9)
    await channel.put("data: 3\n\n", 9)
    second = await channel.take()

    assert (["data: 1\n\n"], ["data: 2\n\ndata: 3\n\n"]) == (first, second)


async def test_take_waits_for_the_first_event() -> None:
    channel = Channel(Merger())
    taken = asyncio.create_task(channel.take())
    await asyncio.sleep(0)
    waiting = not taken.done()
    await channel.put("x", 1)

    assert (True, ["x"]) == (waiting, await taken)


async def test_a_closed_channel_gives_what_waits_and_then_nothing() -> None:
    channel = Channel(Merger())
    await channel.put("x", 1)
    channel.close()
    await channel.put("late", 4)

    assert (["x"], []) == (await channel.take(), await channel.take())


async def test_put_waits_while_too_much_is_waiting() -> None:
    channel = Channel(Merger(), limit=10)
    await channel.put("x" * 10, 10)
    second = asyncio.create_task(channel.put("y", 1))
    await asyncio.sleep(0)
    waiting = not second.done()
    await channel.take()
    await second

    assert (True, ["y"]) == (waiting, await channel.take())


@pytest.mark.parametrize(
    ("events", "chunks"),
    [
        ([text_frame("a"), text_frame("b")], [frame(0, text="ab")]),
        (
            [text_frame("a"), END_FRAME],
            [frame(0, text="a"), {"event": "stream_end", "message_num": 1}],
        ),
        ([history_frame(1), history_frame(2)], [frame(0, history=2)]),
        (
            [history_frame(1), history_frame(2), END_FRAME],
            [frame(0, history=2), {"event": "stream_end", "message_num": 1}],
        ),
    ],
)
def test_waiting_frames_are_merged_and_numbered(events: list[Any], chunks: list[Any]) -> None:
    assert chunks == Merger()(events)


def test_frames_are_numbered_through_all_chunks() -> None:
    merger = Merger()
    merger([text_frame("a")])

    assert [frame(1, text="b")] == merger([text_frame("b")])


@pytest.mark.parametrize("make", [text_frame, str])
def test_no_chunk_is_over_the_platforms_limit(make: Any) -> None:
    chunks = Merger()([make('日"' * 40_000) for _ in range(20)])
    sizes = [len(json.dumps({"output": chunk}, ensure_ascii=False).encode()) for chunk in chunks]

    assert max(sizes) <= MAX_CHUNK_BYTES


def test_an_event_is_never_cut() -> None:
    events = [f"data: {number:0100000d}\n\n" for number in range(30)]

    chunks = Merger()(events)

    assert [True] * len(chunks) == [chunk.endswith("\n\n") for chunk in chunks]
    assert "".join(events) == "".join(chunks)


async def test_events_that_make_no_chunk_do_not_look_like_the_end() -> None:
    channel = Channel(Merger())
    await channel.put(text_frame(""), 0)
    taken = asyncio.create_task(channel.take())
    await asyncio.sleep(0)
    await channel.put(text_frame("a"), 1)

    assert [frame(0, text="a")] == await taken
