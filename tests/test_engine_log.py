from __future__ import annotations

import pytest

from worker.engine_log import MAX_LINES_PER_SECOND, EngineLog


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None, **options: int) -> tuple[EngineLog, list[str]]:
    lines: list[str] = []
    log = EngineLog(
        lines.append,
        clock=clock or Clock(),
        tail_lines=options.get("tail_lines", 50),
        lines_per_second=options.get("lines_per_second", MAX_LINES_PER_SECOND),
    )
    return log, lines


@pytest.mark.parametrize("cut", range(9))
def test_lines_do_not_depend_on_where_the_bytes_are_cut(cut: int) -> None:
    log, lines = make()
    data = "ab\ncdé\ne".encode()
    log.feed(data[:cut])
    log.feed(data[cut:])
    log.close()

    assert lines == ["ab", "cdé", "e"]


def test_a_carriage_return_ends_a_line_and_empty_lines_are_left_out() -> None:
    log, lines = make()
    log.feed(b"10%\r20%\r\n\n")

    assert lines == ["10%", "20%"]


def test_lines_over_the_limit_are_counted_in_one_line() -> None:
    clock = Clock()
    log, lines = make(clock, lines_per_second=2)
    log.feed(b"1\n2\n3\n4\n")
    clock.now = 1.0
    log.tick()
    log.feed(b"5\n")

    assert lines == ["1", "2", "2 lines of the engine's output were dropped: too many", "5"]


def test_dropped_lines_are_in_the_tail() -> None:
    log, _ = make(lines_per_second=1, tail_lines=2)
    log.feed(b"1\n2\n3\n")

    assert log.tail() == ["2", "3"]


def test_unwanted_lines_are_neither_logged_nor_kept() -> None:
    lines: list[str] = []
    log = EngineLog(lines.append, tail_lines=2, unwanted='"GET /probe')
    log.feed(b'loaded\n127.0.0.1 "GET /probe HTTP/1.1" 200 -\nserves\n')

    assert (["loaded", "serves"], ["loaded", "serves"]) == (lines, log.tail())
