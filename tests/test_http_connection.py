"""Connections to the engine: kept for the next request, never trusted, nothing sent twice."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from worker.client import EngineClient
from worker.errors import EngineBroken, EngineDown, EngineRefused
from worker.http_connection import MAX_WAITING_BYTES
from worker.http_pool import MAX_IDLE, Pool
from worker.slots import Stop

PATIENCE = 5


@dataclass
class Wire:
    """One connection as the engine sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> bytes:
        """Read one request; its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.partition(b"Content-Length: ")[2].split(b"\r\n", 1)[0]
        body = await self.reader.readexactly(int(length or 0))
        self.requests += 1
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, number: int) -> None:
        body = json.dumps(number).encode()
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def hang_up(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


Serve = Callable[[Wire, int], Awaitable[None]]


@asynccontextmanager
async def engine(serve: Serve) -> AsyncIterator[tuple[int, list[Wire]]]:
    """Serve each connection with `serve(wire, its number)`: the port, the connections so far."""
    wires: list[Wire] = []
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        wire = Wire(reader, writer)
        wires.append(wire)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(wire, len(wires) - 1)
        finally:
            writer.close()
            wire.over.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], wires
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[EngineClient]:
    client = EngineClient(port)
    try:
        yield client
    finally:
        await client.close()


async def keeps(wire: Wire, number: int) -> None:
    """Answer each request with the connection's number."""
    while True:
        await wire.request()
        await wire.answer(number)


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with engine(keeps) as (port, wires), client_of(port) as client:
        answers = [await client.json("POST", "/x", {}) for _ in range(3)]

    assert ([0, 0, 0], 1) == (answers, len(wires))


async def test_requests_at_once_have_a_connection_each_and_few_are_kept() -> None:
    count = 2 * MAX_IDLE
    everybody = asyncio.Event()

    async def together(wire: Wire, number: int) -> None:
        await wire.request()
        if number == count - 1:
            everybody.set()
        await everybody.wait()
        await wire.answer(number)
        await wire.request()

    async with engine(together) as (port, wires), client_of(port) as client:
        answers = await asyncio.gather(*(client.json("GET", "/x") for _ in range(count)))
        closed = [asyncio.create_task(wire.over.wait()) for wire in wires]
        while sum(task.done() for task in closed) < count - MAX_IDLE:
            await asyncio.wait_for(
                asyncio.wait(
                    [task for task in closed if not task.done()],
                    return_when=asyncio.FIRST_COMPLETED,
                ),
                PATIENCE,
            )
        open_ones = sum(not wire.over.is_set() for wire in wires)
        for task in closed:
            task.cancel()

    assert (list(range(count)), MAX_IDLE) == (sorted(answers), open_ones)


async def test_a_connection_that_the_engine_closed_meanwhile_is_not_used() -> None:
    """llama.cpp's server says keep-alive on its streams and closes after them."""

    async def once(wire: Wire, number: int) -> None:
        await wire.request()
        await wire.answer(number)
        await wire.hang_up()

    async with engine(once) as (port, wires), client_of(port) as client:
        first = await client.json("GET", "/x")
        await asyncio.wait_for(wires[0].over.wait(), PATIENCE)
        second = await client.json("GET", "/x")

    assert [0, 1] == [first, second]


async def test_a_second_answer_to_one_request_answers_no_other() -> None:
    async def babbles(wire: Wire, number: int) -> None:
        await wire.request()
        await wire.answer(number)
        await wire.answer(99)
        await wire.request()

    async with engine(babbles) as (port, _), client_of(port) as client:
        answers = [await client.json("GET", "/x") for _ in range(2)]

    assert [0, 1] == answers


@pytest.mark.parametrize("turns", [0, 5])
async def test_what_comes_unasked_answers_no_request(turns: int) -> None:
    """turns: of the event loop before the next request; after some of them it has been read."""
    answered, sent = asyncio.Event(), asyncio.Event()

    async def babbles(wire: Wire, number: int) -> None:
        await wire.request()
        await wire.answer(number)
        await answered.wait()
        await wire.answer(99)
        sent.set()
        await wire.request()

    async with engine(babbles) as (port, _), client_of(port) as client:
        first = await client.json("GET", "/x")
        answered.set()
        await asyncio.wait_for(sent.wait(), PATIENCE)
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await client.json("GET", "/x")

    assert [0, 1] == [first, second]


async def test_a_request_that_gets_no_answer_is_sent_once() -> None:
    async def deaf(wire: Wire, number: int) -> None:
        await wire.request()
        if number == 0 and wire.requests == 1:
            await wire.answer(number)
            await wire.request()

    async with engine(deaf) as (port, wires), client_of(port) as client:
        await client.json("POST", "/x", {})
        with pytest.raises(EngineBroken, match="broke off"):
            await client.json("POST", "/x", {})

    assert [2] == [wire.requests for wire in wires]


async def test_an_early_answer_ends_the_sending_and_the_connection() -> None:
    body = b'{"error": "too long"}'

    async def refuses(wire: Wire, number: int) -> None:
        if number == 0:
            await wire.reader.readuntil(b"\r\n\r\n")
            await wire.send(b"HTTP/1.1 413 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await asyncio.Event().wait()
        await keeps(wire, number)

    async with engine(refuses) as (port, _), client_of(port) as client:
        with pytest.raises(EngineRefused, match="too long"):
            await asyncio.wait_for(client.json("POST", "/x", {"x": "x" * 15_000_000}), PATIENCE)
        assert 1 == await client.json("GET", "/x")


async def test_a_long_body_arrives_whole() -> None:
    sent = {"x": "日本" * 1_000_000}
    bodies: list[bytes] = []

    async def takes(wire: Wire, number: int) -> None:
        bodies.append(await wire.request())
        await wire.answer(number)

    async with engine(takes) as (port, _), client_of(port) as client:
        await client.json("POST", "/x", sent)

    assert sent == json.loads(bodies[0])


async def test_whoever_gives_up_sending_hangs_up() -> None:
    begun = asyncio.Event()

    async def slow(wire: Wire, _number: int) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        begun.set()
        while await wire.reader.read(2**20):
            pass

    async with engine(slow) as (port, wires), client_of(port) as client:
        task = asyncio.create_task(client.json("POST", "/x", {"x": "x" * 15_000_000}))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(wires[0].over.wait(), PATIENCE)

    assert task.cancelled()


async def test_an_engine_that_sends_too_fast_is_kept_waiting() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n"

    async def floods(wire: Wire, _number: int) -> None:
        await wire.request()
        await wire.send(head + b"x" * 50_000_000)

    async with engine(floods) as (port, _):
        pool = Pool(port, connect_timeout=PATIENCE)
        connection = await pool.take()
        await connection.send(b"GET /x HTTP/1.1\r\n\r\n", b"")
        while connection.answer.size <= MAX_WAITING_BYTES:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0)
        for _ in range(100):  # turns of the event loop, in each of which more could come
            await asyncio.sleep(0)
        waiting = connection.answer.size
        whole = await connection.whole(50_000_000)
        pool.give_back(connection)
        pool.close()

    assert (True, 50_000_000) == (waiting <= 2 * MAX_WAITING_BYTES, len(whole))


async def test_much_that_is_no_body_does_not_stop_the_reading() -> None:
    async def talks(wire: Wire, _number: int) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=")
        await wire.send(b"y" * (4 * MAX_WAITING_BYTES) + b"\r\n123\r\n0\r\n\r\n")

    async with engine(talks) as (port, _):
        pool = Pool(port, connect_timeout=PATIENCE)
        connection = await pool.take()
        await connection.send(b"GET /x HTTP/1.1\r\n\r\n", b"")
        while connection.answer.size <= MAX_WAITING_BYTES:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0)
        body = await asyncio.wait_for(connection.whole(100), PATIENCE)
        pool.give_back(connection)
        pool.close()

    assert b"123" == body


async def test_the_next_stream_finds_a_connection_that_was_made_meanwhile() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    ahead = asyncio.Event()

    async def streams(wire: Wire, number: int) -> None:
        if number == 1:
            ahead.set()
        await wire.request()
        await wire.send(head + b"data: %d\n\n" % number)
        if number == 0:
            await ahead.wait()

    async with engine(streams) as (port, _), client_of(port) as client:
        first = [event.data async for event in client.events("/x", {}, Stop())]
        second = [event.data async for event in client.events("/x", {}, Stop())]

    assert (["0"], ["1"]) == (first, second)


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with engine(keeps) as (port, wires):
        pool = Pool(port, connect_timeout=PATIENCE, idle_seconds=0.01)
        connection = await pool.take()
        await connection.send(b"GET /x HTTP/1.1\r\n\r\n", b"")
        await connection.whole(100)
        pool.give_back(connection)
        await asyncio.wait_for(wires[0].over.wait(), PATIENCE)
        pool.close()


async def test_an_engine_that_accepts_no_connection_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        others = [socket.socket() for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(address)
        client = EngineClient(address[1], connect_timeout=0.1)
        with pytest.raises(EngineDown, match="does not answer"):
            await client.json("GET", "/x")
        await client.close()
        for other in others:
            other.close()
