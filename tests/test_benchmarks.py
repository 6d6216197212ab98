"""The benchmarks run and give figures: tiny ones here, whatever the machine is busy with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import draw, growth, jobs, memory, scaling, starts
from benchmarks.__main__ import main, text
from benchmarks.fast_platform import FastPlatform
from benchmarks.forwarding import forwarding
from benchmarks.lifecycle import end_of
from benchmarks.measure import Row, interleaved, summarize
from benchmarks.options import Options
from benchmarks.queue_model import Endpoint
from benchmarks.scale import scale
from benchmarks.stub import running_stub
from benchmarks.workers import ours, worker_process

TINY = Options(rounds=1, calls=2, events=5, slow=False)


async def test_sides_take_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def sample(name: str) -> Any:
        async def run() -> float:
            order.append(name)
            return float(len(order))

        return run

    figures = await interleaved({"a": sample("a"), "b": sample("b")}, rounds=2)

    assert ["a", "b", "b", "a", "a", "b"] == order
    assert [4.5, 4.5] == [figures["a"].median, figures["b"].median]


def test_a_row_has_each_sides_ratio_to_the_base() -> None:
    sides = {"x": summarize([1.0, 2.0, 6.0]), "y": summarize([4.0])}

    row = Row("what", "ms", sides, "y")

    assert {"x": 0.5, "y": 1.0} == row.ratios
    assert "0.50 x y" in text(row)


async def test_forwarding_measures_every_side() -> None:
    rows = await forwarding(TINY)

    assert {6, 5} == {len(row.sides) for row in rows}
    assert all(side.median > 0 for row in rows for side in row.sides.values())


async def test_a_worker_answers_a_backlog_through_the_raw_platform_and_ends() -> None:
    async with running_stub() as (port, _), FastPlatform().serving() as platform:
        command = ours(port, slots=2)
        async with worker_process(command, platform.variables()) as process:
            rate = await jobs.backlog(platform, 10, 0.0)
            megabytes, seconds = await memory.large(platform, process.pid, "output", 100_000)

        assert rate > 0
        assert megabytes >= 0
        assert seconds >= 0


async def test_a_worker_asks_for_its_first_job_and_ends_at_sigterm() -> None:
    async with running_stub() as (port, _):
        assert 0 < await starts.first_take(ours(port, slots=1))
        assert 0 < await end_of(ours(port, slots=1))


def test_the_page_gets_the_records_between_its_marks(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps(record(2.0)))

    page = draw.with_tables(f"before {draw.BEGIN} old {draw.END} after", draw.kept(tmp_path))

    assert page.startswith("before ")
    assert page.endswith(" after")
    assert "| what | ours | 2 ms | 2 to 2 | 1.00 x ours | 1.00 x | reach |" in page
    assert " old " not in page


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])

    assert "there is no benchmark nothing" in capsys.readouterr().err


def record(median: float) -> dict[str, Any]:
    side = {"median": median, "low": median, "high": median, "rounds": 1}
    row = {
        "what": "what",
        "unit": "ms",
        "sides": {"ours": side},
        "base": "ours",
        "reach": "reach",
        "note": "",
        "ratios": {"ours": 1.0},
        "best_ratios": {"ours": 1.0},
    }
    machine = {"cpu": "c", "cores": 2, "python": "3", "load_average": 1}
    return {
        "benchmark": "jobs",
        "time": "2026-01-01 00:00",
        "machine": machine,
        "load_average_after": 1,
        "rows": [row],
    }


async def test_a_start_is_measured_with_the_weights_in_the_cache_and_without() -> None:
    (row,) = await growth.growth(TINY)

    assert [growth.WARM, growth.AHEAD, growth.COLD] == list(row.sides)


async def test_waits_are_measured_beside_the_calculation() -> None:
    (row,) = await scale(TINY)

    assert ["mean, measured", "p99, measured", "mean, computed", "p99, computed"] == list(row.sides)


def test_an_endpoint_does_no_more_than_its_workers_can() -> None:
    endpoint = Endpoint(slots=1, most=2, requests=1)

    busy = scaling.point(endpoint, rate=10.0, count=2000)

    assert 0.36 < busy.throughput <= 2 / scaling.WORK
