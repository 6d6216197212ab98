"""One job through the handler, beside the floor and the peers: latency, throughput, streams."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Mapping
from functools import partial

from benchmarks.machine import cpu_seconds
from benchmarks.measure import Row, Sample, interleaved, summarize
from benchmarks.options import Options
from benchmarks.sides import FLOOR, MESSAGES, OLDER, SHARED, Side, all_sides, in_parallel
from benchmarks.stub import PLAIN, STREAMED, running_stub
from worker.runpod_sdk import load_sdk

_STAMP = re.compile(r'"content":\s?"(\d{6,}) "')
_KINDS = {"plain answer": PLAIN, "completion": STREAMED}


async def forwarding(options: Options) -> list[Row]:
    """All rows about forwarding; the floor, then ours beside everybody else."""
    load_sdk()
    # the SDK can only be imported by load_sdk, which keeps its slow imports out
    from runpod.serverless.utils.rp_validator import validate  # noqa: PLC0415

    async with running_stub() as (port, stub_pid), all_sides(port, validate) as sides:
        rows = []
        for kind, path in _KINDS.items():
            rows += await _latency(sides, kind, path, options)
            for at_once in (16, 128):
                rows.append(await _throughput(sides, kind, at_once, options, stub_pid))
        rows.append(await _slow_upstream(sides, options))
        rows += await _streams(sides, options)
    return rows


async def _latency(sides: Mapping[str, Side], kind: str, path: str, options: Options) -> list[Row]:
    """The median call of each round, one at a time; and the processor time of a call.

    On a machine that others use too the processor time is the steadier of the two.
    """
    body = {"messages": MESSAGES, "max_tokens": 2}
    cpu: dict[str, list[float]] = {name: [] for name in sides}

    async def sample(name: str) -> float:
        times = []
        used = time.process_time()
        for _ in range(options.calls):
            started = time.perf_counter()
            await sides[name].call(path, body)
            times.append(time.perf_counter() - started)
        cpu[name].append((time.process_time() - used) / options.calls * 1e3)
        return statistics.median(times) * 1e3

    samples: dict[str, Sample] = {name: partial(sample, name) for name in sides}
    figures = await interleaved(samples, rounds=options.rounds)
    used = {name: summarize(times[1:]) for name, times in cpu.items()}
    reach = "at most 1.15 x shared aiohttp, 0.4 x both workers"
    return [
        Row(f"one job at a time, p50, {kind}", "ms", figures, SHARED, reach),
        Row(f"one job at a time, CPU, {kind}", "ms", used, SHARED, reach),
    ]


async def _throughput(
    sides: Mapping[str, Side], kind: str, at_once: int, options: Options, stub_pid: int
) -> Row:
    """Jobs a second, so many at once; the upstream's own load with it."""
    body = {"messages": MESSAGES, "max_tokens": 2}
    busy: dict[str, list[float]] = {name: [] for name in sides}

    async def sample(name: str) -> float:
        used, started = cpu_seconds(stub_pid), time.perf_counter()
        call = partial(sides[name].call, _KINDS[kind], body)
        await in_parallel(call, total=2 * options.calls, at_once=at_once)
        seconds = time.perf_counter() - started
        busy[name].append((cpu_seconds(stub_pid) - used) / seconds)
        return 2 * options.calls / seconds

    samples: dict[str, Sample] = {name: partial(sample, name) for name in sides}
    figures = await interleaved(samples, rounds=options.rounds)
    shares = ", ".join(f"{name} {statistics.median(busy[name]):.0%}" for name in sides)
    return Row(
        f"{at_once} at once, {kind}",
        "jobs/s",
        figures,
        SHARED,
        "at least 0.85 x shared aiohttp, 3 x worker-vllm",
        lower_is_better=False,
        note=f"the upstream's process is busy: {shares}",
    )


async def _slow_upstream(sides: Mapping[str, Side], options: Options) -> Row:
    """128 callers of an upstream that takes 50 ms: 2,560 jobs a second are ideal."""
    body = {"messages": MESSAGES, "max_tokens": 2, "delay": 0.05}

    async def sample(name: str) -> float:
        total = 4 if name == OLDER else 4 * 128 if options.calls > 50 else 16
        call = partial(sides[name].call, PLAIN, body)
        started = time.perf_counter()
        await in_parallel(call, total=total, at_once=128)
        return total / (time.perf_counter() - started)

    samples: dict[str, Sample] = {name: partial(sample, name) for name in sides}
    figures = await interleaved(samples, rounds=options.rounds)
    return Row(
        "128 at once, upstream of 50 ms",
        "jobs/s",
        figures,
        SHARED,
        "at least 0.85 x shared aiohttp, 3 x worker-vllm",
        lower_is_better=False,
    )


async def _streams(sides: Mapping[str, Side], options: Options) -> list[Row]:
    """Streams of 200 events: processor time an event, and how late each event is handed on."""
    able = {name: side for name, side in sides.items() if name != OLDER}
    burst = {"messages": MESSAGES, "stream": True, "max_tokens": options.events}
    paced = {**burst, "gap": 0.002}
    late: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in able} for kind in ("first", "each")
    }

    async def cpu(side: Side, body: dict[str, object], count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            await side.stream(STREAMED, body, lambda _: None)
        return (time.process_time() - started) / (options.events * count) * 1e6

    async def delays(name: str) -> float:
        seen: list[float] = []

        def on_text(text: str) -> None:
            now = time.monotonic_ns()
            seen.extend((now - int(stamp)) / 1e3 for stamp in _STAMP.findall(text))

        used = time.process_time()
        await able[name].stream(STREAMED, paced, on_text)
        late["first"][name].append(seen[0])
        late["each"][name].append(statistics.median(seen))
        return (time.process_time() - used) / options.events * 1e6

    bursts: dict[str, Sample] = {
        name: partial(cpu, side, burst, max(1, options.calls // 20)) for name, side in able.items()
    }
    spaced: dict[str, Sample] = {name: partial(delays, name) for name in able}
    reach = "no worse than worker-vllm, with every event whole"
    return [
        Row(
            f"stream of {options.events} events in one burst, CPU an event",
            "us",
            await interleaved(bursts, rounds=options.rounds),
            "worker-vllm",
            reach,
        ),
        Row(
            f"stream of {options.events} events 2 ms apart, CPU an event",
            "us",
            await interleaved(spaced, rounds=options.rounds),
            "worker-vllm",
            reach,
        ),
        *(_delay_row(kind, late[kind]) for kind in late),
    ]


def _delay_row(kind: str, samples: Mapping[str, list[float]]) -> Row:
    figures = {name: summarize(times[1:]) for name, times in samples.items()}
    what = f"delay of the {'first event' if kind == 'first' else 'median event'} of a stream"
    return Row(what, "us", figures, FLOOR, "no worse than worker-vllm")
