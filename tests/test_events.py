"""Server-sent events are whole, however the bytes are cut."""

import pytest

from worker.errors import EngineBroken
from worker.events import Event, EventDecoder

STREAM = (
    '\ufeffdata: {"text": "日本 🎉\u2028"}\n\n'
    ": ping\n\n"
    "event: done\r\ndata: a\r\ndata: b\r\n\r\n"
    "id: 7\ndata:no space\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    Event("", '{"text": "日本 🎉\u2028"}'),
    Event("done", "a\nb"),
    Event("", "no space"),
    Event("", "[DONE]"),
]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_any_cut_gives_the_same_events(cut: int) -> None:
    decoder = EventDecoder()

    events = decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:])

    assert EVENTS == events


def test_byte_by_byte_gives_the_same_events() -> None:
    decoder = EventDecoder()

    events = [event for byte in STREAM for event in decoder.feed(bytes([byte]))]

    assert EVENTS == events


def test_an_event_without_its_blank_line_is_not_given_out() -> None:
    assert [] == EventDecoder().feed(b"data: half")


def test_bytes_that_are_not_text_are_an_engine_error() -> None:
    with pytest.raises(EngineBroken, match="not text"):
        EventDecoder().feed(b"data: \xff\xfe\n\n")


def test_an_event_over_the_limit_is_an_engine_error() -> None:
    with pytest.raises(EngineBroken, match="without end"):
        EventDecoder(limit=10).feed(b"data: 0123456789")


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_encoded_event_decodes_to_itself(event: Event) -> None:
    assert [event] == EventDecoder().feed(event.encode().encode())
