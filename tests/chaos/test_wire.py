"""Engines that misbehave on the wire, under the real runner: a job fails in time, memory stays."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_engine import Call, Script, fake_engine
from tests.fuzz import check, make_runner
from worker.client import EngineClient
from worker.output import Outcome
from worker.runner import Runner
from worker.slots import Slots
from worker.stream import Discard

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
WORD = b'data: {"content": "word", "choices": [{"index": 0, "text": "word"}]}\n\n'
ROUTES = ("/generate", "/v1/completions", "/v1/embeddings")
STREAMS = ROUTES[:2]
MB = 1_000_000


@asynccontextmanager
async def running(script: Script, job_timeout: float) -> AsyncIterator[tuple[Runner, Slots]]:
    async with fake_engine(script) as engine:
        client, slots = EngineClient(engine.port), Slots(1)
        try:
            yield make_runner(client, slots, job_timeout=job_timeout), slots
        finally:
            await client.close()


async def outcome_of(script: Script, route: str, *, job_timeout: float = 20) -> Outcome:
    """The outcome of a job on an engine with this script; its slot is free again."""
    payload = {"prompt": "Hello", "max_new_tokens": 5}
    job = {"id": "j1", "input": {"api": {"method": "POST", "endpoint": route}, "payload": payload}}
    async with running(script, job_timeout) as (runner, slots):
        outcome = await asyncio.wait_for(runner.run(job, Discard()), 40)
        assert slots.idle
    check(outcome)
    return outcome


class Memory:
    """How much more memory this process has had at once than when this was made."""

    def __init__(self) -> None:
        # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html: 5 resets the peak
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def grown(self) -> int:
        """Bytes."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def says(*parts: bytes) -> Script:
    async def script(call: Call) -> None:
        for part in parts:
            await call.raw(part)

    return script


def repeats(head: bytes, part: bytes, total: int) -> Script:
    async def script(call: Call) -> None:
        await call.raw(head)
        for _ in range(total // len(part)):
            await call.raw(part)

    return script


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="hangs up"),
        pytest.param([JSON_HEAD + b"Content-Length: 100\r\n\r\n"], id="closes after the headers"),
        pytest.param([JSON_HEAD + b'Content-Length: 100\r\n\r\n{"data'], id="half a JSON"),
        pytest.param([JSON_HEAD + b'\r\n{"data": ['], id="half a JSON without a length"),
        pytest.param([JSON_HEAD + b"\r\n\xff\xfe\xfa"], id="invalid UTF-8"),
        pytest.param([JSON_HEAD + b"Content-Encoding: gzip\r\n\r\nno"], id="invalid gzip"),
        pytest.param([b"SSH-2.0-OpenSSH_9.6\r\n"], id="another protocol"),
        pytest.param([STREAM_HEAD], id="an empty stream"),
        pytest.param([STREAM_HEAD, WORD], id="a stream without its end"),
        pytest.param([STREAM_HEAD, b"data: \xff\xfe\n\n"], id="invalid UTF-8 in an event"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"], id="bad chunk"
        ),
        pytest.param([JSON_HEAD + b"X: " + b"x" * 100_000], id="a header without end"),
        pytest.param([b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\n\r\n"], id="redirect"),
    ],
)
async def test_a_broken_answer_fails_its_job_as_the_engines_fault(
    route: str, parts: list[bytes]
) -> None:
    outcome = await outcome_of(says(*parts), route)

    assert 502 == outcome.status


@pytest.mark.parametrize("route", ROUTES)
async def test_a_slow_loris_answer_ends_with_the_jobs_time(route: str) -> None:
    async def script(call: Call) -> None:
        for byte in JSON_HEAD + b'\r\n{"data": "' + b"x" * 1000:
            await call.raw(bytes([byte]))
            await asyncio.sleep(0.05)

    outcome = await outcome_of(script, route, job_timeout=0.5)

    assert 504 == outcome.status


@pytest.mark.parametrize("route", STREAMS)
async def test_a_stream_that_stalls_ends_with_the_jobs_time(route: str) -> None:
    async def script(call: Call) -> None:
        await call.raw(STREAM_HEAD + WORD)
        await call.gone()

    outcome = await outcome_of(script, route, job_timeout=0.5)

    assert 504 == outcome.status


async def test_headers_without_end_do_not_fill_the_memory() -> None:
    memory = Memory()
    outcome = await outcome_of(
        repeats(JSON_HEAD, b"X-Header: value\r\n" * 1000, 100 * MB), "/v1/embeddings"
    )

    assert 502 == outcome.status
    assert memory.grown() < 60 * MB


@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_of_a_gigabyte_is_refused_early(route: str) -> None:
    memory = Memory()
    outcome = await outcome_of(
        repeats(JSON_HEAD + b"Content-Length: 1000000000\r\n\r\n", b"[" * MB, 1000 * MB), route
    )

    assert 413 == outcome.status
    assert memory.grown() < 100 * MB


async def test_a_gigabyte_of_events_is_refused_as_soon_as_its_text_can_not_be_sent() -> None:
    memory = Memory()
    large = b'data: {"content": "' + b"x" * MB + b'", "stop": false}\n\n'
    outcome = await outcome_of(repeats(STREAM_HEAD, large, 1000 * MB), "/generate")

    assert 413 == outcome.status
    assert memory.grown() < 100 * MB


async def test_many_megabytes_packed_into_one_are_not_unpacked() -> None:
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(b" " * MB) for _ in range(300)) + packer.flush()
    memory = Memory()
    outcome = await outcome_of(
        says(JSON_HEAD + b"Content-Encoding: deflate\r\n\r\n", packed), "/v1/embeddings"
    )

    assert 502 == outcome.status
    assert memory.grown() < 50 * MB


@pytest.mark.parametrize("route", STREAMS)
async def test_a_single_event_without_end_is_refused_early(route: str) -> None:
    memory = Memory()
    outcome = await outcome_of(
        repeats(STREAM_HEAD + b'data: {"content": "', b"x" * MB, 1000 * MB), route
    )

    assert 502 == outcome.status
    assert memory.grown() < 150 * MB


@pytest.mark.parametrize("route", STREAMS)
async def test_comments_without_end_do_not_fill_the_memory(route: str) -> None:
    memory = Memory()
    await outcome_of(repeats(STREAM_HEAD, b": ping\n\n" * 10_000, 8 * MB), route)

    assert memory.grown() < 7 * MB


@pytest.mark.parametrize("route", ROUTES)
async def test_an_error_that_comes_with_status_200_is_a_failure(route: str) -> None:
    async def script(call: Call) -> None:
        await call.answer({"error": {"message": "CUDA out of memory"}})

    outcome = await outcome_of(script, route)

    assert "CUDA out of memory" in (outcome.error or "")


@pytest.mark.parametrize("route", STREAMS)
async def test_an_error_within_a_stream_is_a_failure_with_the_text_so_far(route: str) -> None:
    error = json.dumps({"error": {"message": "slot unavailable"}}).encode()
    outcome = await outcome_of(says(STREAM_HEAD, WORD, b"data: " + error + b"\n\n"), route)
    body: Any = json.loads(outcome.body)

    assert ("slot unavailable" in body["error"], "word") == (
        True,
        body["output"]["detail"]["partial"],
    )
