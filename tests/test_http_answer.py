"""Whatever bytes come, and however they are cut: one answer, or a broken one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import PROFILE
from worker.http_answer import MAX_HEAD_BYTES, Answer

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Time: 1\r\nContent-Type: a/b\r\n\r\n"
WIRES = {
    "length": JSON + b"Content-Length: 5\r\n\r\nhello",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunks and trailers": STREAM + CHUNKED + BODY,
    "until the end": b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11\r\n\r\nhello",
    "half": JSON + b"Content-Length: 9\r\n\r\nhello",
    "half a chunk": STREAM + CHUNKED + b"20\r\nhello",
    "1xx": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Type: a/b\r\n"
    b"Link: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "switching": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x05",
    "closes": b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    "two answers": (JSON + b"Content-Length: 5\r\n\r\nhello") * 2,
    "rubbish after": JSON + b"Content-Length: 5\r\n\r\nhelloSSH-2.0",
    "two lengths": JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": JSON + b"Content-Length: 5\r\n" + CHUNKED + BODY,
    "no status": b"HTTP/1.1 \r\n\r\n",
    "status 0": b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "a head over the bound": JSON + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\nhello",
    "many 1xx": b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000 + b"HTTP/1.1 204 X\r\n\r\n",
}
Seen = tuple[int, str, bytes, bool, bool, bool]


def seen(wire: bytes, cuts: list[int]) -> Seen:
    """What there is of an answer that came in these parts before the connection ended."""
    answer = Answer()
    places = [0, *sorted(cut for cut in cuts if cut <= len(wire)), len(wire)]
    body = b""
    for start, end in pairwise(places):
        if end > start:
            answer.feed(wire[start:end])
            body += answer.take()
    kept = answer.kept
    answer.end()
    return answer.status, answer.kind, body, answer.over, answer.broken, kept


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("length", (200, "application/json", b"hello", True, False, True)),
        ("no body", (204, "", b"", True, False, True)),
        ("chunks and trailers", (200, "text/event-stream", b"hello world", True, False, True)),
        ("until the end", (200, "", b"hello", True, False, False)),
        ("half", (200, "application/json", b"hello", False, True, False)),
        ("half a chunk", (200, "text/event-stream", b"hello", False, True, False)),
        ("1xx", (200, "", b"hi", True, False, True)),
        ("switching", (0, "", b"", False, True, False)),
        ("closes", (500, "", b"no", True, False, False)),
        ("two answers", (200, "application/json", b"hello", True, False, False)),
        ("rubbish after", (200, "application/json", b"hello", True, False, False)),
        ("no status", (0, "", b"", False, True, False)),
        ("status 0", (0, "", b"", False, True, False)),
        ("another protocol", (0, "", b"", False, True, False)),
        ("nothing", (0, "", b"", False, True, False)),
        ("many 1xx", (0, "", b"", False, True, False)),
    ],
)
def test_an_answer_is_what_its_bytes_say(name: str, expected: Seen) -> None:
    assert expected == seen(WIRES[name], [])


@pytest.mark.parametrize("name", ["two lengths", "length and chunks", "a head over the bound"])
def test_an_answer_that_can_be_read_in_two_ways_is_broken(name: str) -> None:
    answer = Answer()
    answer.feed(WIRES[name])

    assert (True, False, b"") == (answer.broken, answer.over, answer.take())


@pytest.mark.parametrize("name", WIRES)
def test_one_cut_anywhere_gives_the_same_answer(name: str) -> None:
    wire = WIRES[name]
    whole = seen(wire, [])
    step = max(1, len(wire) // 500)

    assert {whole} == {seen(wire, [cut]) for cut in range(0, len(wire) + 1, step)}


@PROFILE
@given(st.sampled_from(list(WIRES.values())), st.lists(st.integers(0, 70_000), max_size=20))
def test_any_cuts_give_the_same_answer(wire: bytes, cuts: list[int]) -> None:
    assert seen(wire, []) == seen(wire, cuts)


@PROFILE
@given(
    st.lists(st.sampled_from([JSON, STREAM, CHUNKED, BODY, b"\r\n", b"hello"]) | st.binary()),
    st.lists(st.integers(0, 500), max_size=9),
)
def test_any_bytes_make_a_whole_answer_or_a_broken_one(parts: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(parts)
    *_, over, broken, _ = whole = seen(wire, [])

    assert over != broken
    assert whole == seen(wire, cuts)


def test_a_head_of_as_many_bytes_as_allowed_is_taken() -> None:
    start, end = JSON + b"Content-Length: 5\r\nX: ", b"\r\n\r\n"
    padding = b"x" * (MAX_HEAD_BYTES - len(start) - len(end))

    wires = [start + more + end + b"hello" for more in (padding, padding + b"x")]
    assert [200, 0] == [seen(wire, [])[0] for wire in wires]
