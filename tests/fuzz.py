"""Random jobs and random answers of an engine, and a runner between the two."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chaos.dialect import CONTEXT, Answer, answer, event
from tests.fake_engine import Call, fake_engine
from worker.blocking import BlockingApi
from worker.client import EngineClient
from worker.contract.llama_cpp import check_native
from worker.contract.parameters import TABLE
from worker.dispatch import Dispatch
from worker.engines.llama_backend import LlamaBackend
from worker.errors import UnknownRoute
from worker.forward import Forwarder
from worker.output import MAX_ERROR_CHARACTERS, MAX_OUTPUT_BYTES, Outcome
from worker.runner import Runner
from worker.slots import Slots
from worker.stream import Channel

EXAMPLES = int(os.environ.get("RANDOM_EXAMPLES", "50"))
PROFILE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="RANDOM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
ROOT = Path(__file__).parent.parent
SECRET = "hf_CanaryCanaryCanary1234"
# What an engine may say of its inside, and no caller may read in an `error`.
INDISCREET = (
    f"Traceback (most recent call last):\n  File {str(ROOT / 'x.py')!r}, line 1, in f\n"
    f"ValueError: no such file /root/models/private/model.gguf, token {SECRET}"
)
FORBIDDEN = (SECRET, "Traceback", 'File "', "/root/models", str(ROOT), sys.prefix, "worker failed")

# JSON, with all that Python's parser lets through and more

_TEXTS = st.one_of(
    st.text(st.characters(), max_size=20),  # halves of surrogate pairs among them
    st.sampled_from(["", "None", "null", "../..", INDISCREET, SECRET, "\0", "a\nb", "日本🎉"]),
)
_NUMBERS = st.one_of(
    st.integers(-3, 3000),
    st.floats(),
    st.sampled_from([2**31, 2**63, -(2**63), 2**64, 10**400, -(10**4000), 1e308]),
)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=8,
)

# Jobs

_CHAT = {
    "user_input": _TEXTS,
    "history": st.fixed_dictionaries(
        {},
        optional={
            "internal": st.lists(st.lists(_TEXTS, min_size=2, max_size=2), max_size=3),
            "visible": st.lists(st.lists(_TEXTS, min_size=2, max_size=2), max_size=3),
            "data": JSON,
            "data_visible": JSON,
        },
    ),
    "mode": st.sampled_from(["chat", "chat-instruct", "instruct"]),
    "character": st.sampled_from(["Assistant", "Example", "None", "../../etc/passwd"]),
    "instruction_template": st.sampled_from(["None", "Alpaca", "ChatML", "../x"]),
    "turn_template": st.just("<|user|><|user-message|>\n<|bot|><|bot-message|>\n"),
    "regenerate": st.booleans(),
    "_continue": st.booleans(),
}
_OPENAI = {
    "messages": st.lists(st.fixed_dictionaries({"role": _TEXTS, "content": JSON}), max_size=3),
    "input": JSON,
    "max_tokens": st.integers(0, 5),
    "stop": JSON,
    "stream_options": st.just({"include_usage": True}) | JSON,
    "repeat_last_n": _NUMBERS,
    "dry_penalty_last_n": _NUMBERS,
}
_OTHERS = ("prompt", "preset", "action", "model_name", "args", "name1", "name2", "context")
_MEANT = {
    "prompt": _TEXTS,
    "max_new_tokens": st.integers(0, 10),
    "truncation_length": st.integers(1, 3000),
    "stream": st.booleans(),
    "action": st.sampled_from(["", "info", "list", "load", "unload"]),
    "stopping_strings": st.lists(_TEXTS, max_size=3),
}
KNOWN = sorted({*TABLE, *_OTHERS, *_CHAT, *_OPENAI, *_MEANT, "greeting", "your_name"})
_PAYLOAD = st.builds(
    lambda meant, wild: {**meant, **wild},
    st.fixed_dictionaries({}, optional={**_CHAT, **_OPENAI, **_MEANT}),
    st.dictionaries(st.sampled_from(KNOWN) | _TEXTS, JSON, max_size=2),
)
ROUTES = (
    "/model",
    "/generate",
    "/chat",
    "/token-count",
    "/stop-stream",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/models",
    "/v1/embeddings",
)
STREAMED = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
HOSTILE = (
    "/v1/../slots",
    "//evil.example/v1/models",
    "http://evil.example/v1/models",
    "/v1/models@evil.example",
    "/v1/models?key=1",
    "/v1/%2e%2e/slots",
    "/v1/models\r\nHost: evil.example",
    "/api/v1/generate",
    "/v1/",
    "/" * 600,
)
_ENDPOINT = st.one_of(
    st.sampled_from(ROUTES), st.sampled_from(ROUTES), st.sampled_from(HOSTILE), JSON
)
INPUTS = st.one_of(
    st.fixed_dictionaries(
        {
            "api": st.fixed_dictionaries(
                {"endpoint": _ENDPOINT, "method": st.sampled_from(["POST", "POST", "GET", "PUT"])}
            ),
            "payload": _PAYLOAD,
        }
    ),
    st.fixed_dictionaries({"openai_route": _ENDPOINT, "openai_input": _PAYLOAD | JSON}),
    st.dictionaries(st.sampled_from(["api", "payload", "openai_route", "openai_input"]), JSON),
    JSON,
)
JOBS = st.fixed_dictionaries(
    {"id": st.just("j1"), "input": INPUTS},
    optional={"policy": st.fixed_dictionaries({"executionTimeout": _NUMBERS}) | JSON},
)

# What an engine answers when it does not answer as it should

EVENT_KEYS = (
    *("content", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "choices", "index"),
    *("delta", "text", "message", "finish_reason", "usage", "completion_tokens", "output_tokens"),
    *("type", "response", "error", "role", "tool_calls", "id", "function", "name", "arguments"),
    *("content_block", "partial_json", "logprobs", "stop_reason", "detail", "loc", "msg"),
)
EVENT_TYPES = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "response.output_text.delta",
    "response.completed",
    "response.failed",
)
_LIKELY = st.one_of(
    _SCALARS, st.sampled_from(EVENT_TYPES), st.just({"index": 0, "delta": {"content": "x"}})
)
SAID = st.recursive(
    _LIKELY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(EVENT_KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
EVENT_OBJECTS = st.one_of(
    st.dictionaries(st.sampled_from(EVENT_KEYS), SAID, max_size=5),
    st.builds(
        lambda kind, rest: {**rest, "type": kind},
        st.sampled_from(EVENT_TYPES),
        st.dictionaries(st.sampled_from(EVENT_KEYS), SAID, max_size=4),
    ),
    st.fixed_dictionaries({"choices": st.lists(SAID, max_size=2)}),
)
EVENTS = st.one_of(
    EVENT_OBJECTS.map(event),
    st.sampled_from(["data: [DONE]\n\n", "data: null\n\n", ": comment\n\n", "data: {\n\n", "x\r"]),
    SAID.map(event),
    _TEXTS,
)


@dataclass(frozen=True)
class Lie:
    """What the engine sends in place of its answer; `keep` events of the honest one come first."""

    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    keep: int = 0


LIES = st.one_of(
    st.builds(
        Lie,
        status=st.sampled_from([200, 200, 204, 301, 400, 404, 422, 500, 503]),
        kind=st.sampled_from(["application/json", "text/event-stream", "text/html", ";;", "\x7f"]),
        body=st.one_of(st.binary(max_size=40), SAID.map(lambda said: _utf8(json.dumps(said)))),
    ),
    st.builds(
        Lie,
        kind=st.just("text/event-stream"),
        body=st.lists(EVENTS, max_size=4).map(lambda events: _utf8("".join(events))),
        keep=st.integers(0, 5),
    ),
)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class StandInLife:
    """The part of an engine that is not spoken to over HTTP: it lives, and has one model."""

    model_name = "stand-in"
    context_length = CONTEXT

    def describe(self) -> dict[str, Any]:
        return {"model": self.model_name}

    def model_names(self) -> list[str]:
        return [self.model_name]

    loras: Sequence[str] = ()

    def lora_names(self) -> list[str]:
        return []

    def start_loras(self, name: str) -> Sequence[str]:
        return ()

    async def load_loras(self, names: Sequence[str]) -> None:
        return

    async def load(self, name: str, args: Mapping[str, int], loras: Sequence[str]) -> None:
        if name != self.model_name:
            raise UnknownRoute("there is no such model; there are: stand-in")

    async def unload(self) -> None:
        return


def make_runner(client: EngineClient, slots: Slots, *, job_timeout: float) -> Runner:
    """The whole worker behind the job loop, on an engine that speaks llama.cpp's dialect.

    Only `Watched` is left out: it looks for a death after each broken answer, for 0.3 seconds.
    """
    life = StandInLife()
    dispatch = Dispatch(
        blocking=BlockingApi(LlamaBackend(client, life), slots, None),
        openai=Forwarder(client, slots, check_native),
    )
    return Runner(dispatch, job_timeout=job_timeout, platform_first=0)


@dataclass
class World:
    """A runner on an engine that lies when it is told to, in an event loop of its own.

    reset: forgets what the last job changed.
    """

    loop: asyncio.AbstractEventLoop
    runner: Runner
    slots: Slots
    lie: Lie | None = None
    reset: Callable[[], None] = lambda: None

    def run(self, job: Mapping[str, Any], lie: Lie | None = None) -> tuple[Outcome, list[Any]]:
        """The outcome and the chunks of a job; it must come within seconds."""
        self.lie = lie
        self.reset()
        return self.loop.run_until_complete(asyncio.wait_for(self._run(job), 20))

    async def _run(self, job: Mapping[str, Any]) -> tuple[Outcome, list[Any]]:
        channel = Channel(self.runner.merger())
        reader = asyncio.ensure_future(_all_chunks(channel))
        outcome = await self.runner.run(job, channel)
        channel.close()
        return outcome, await reader


async def _all_chunks(channel: Channel) -> list[Any]:
    chunks: list[Any] = []
    while more := await channel.take():
        chunks += more
    return chunks


def wire(honest: Answer, lie: Lie | None) -> bytes:
    """The bytes of an answer; the connection's end is its end."""
    events = [event.encode() for event in honest.events or ()]
    status, kind = honest.status, "application/json" if honest.events is None else _STREAM
    body = json.dumps(honest.body).encode() if honest.events is None else b"".join(events)
    if lie is not None:
        status, kind, body = lie.status, lie.kind, b"".join(events[: lie.keep]) + lie.body
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
    return head.encode("latin-1") + b"Connection: close\r\n\r\n" + body


_STREAM = "text/event-stream"


@contextmanager
def world() -> Iterator[World]:
    """A world with llama.cpp's dialect, in this thread."""
    with in_own_loop(_llama_world) as made:
        yield made


@contextmanager
def in_own_loop(make: Callable[[], AbstractAsyncContextManager[World]]) -> Iterator[World]:
    """Make a world in an event loop of its own, which it keeps."""
    loop = asyncio.new_event_loop()
    try:
        making = make()
        yield loop.run_until_complete(making.__aenter__())
        loop.run_until_complete(making.__aexit__(None, None, None))
    finally:
        loop.close()


@asynccontextmanager
async def _llama_world() -> AsyncIterator[World]:
    made: World

    async def lie(call: Call) -> None:
        running.calls.clear()  # what was asked is of no interest here, and a lot
        await call.raw(wire(answer(call.method, call.path, call.body), made.lie))

    async with fake_engine(lie) as running:
        client, slots = EngineClient(running.port), Slots(2)
        loop = asyncio.get_running_loop()
        made = World(loop, make_runner(client, slots, job_timeout=5), slots)
        yield made
        await client.close()


def check(outcome: Outcome, *, echoes: bool = False) -> None:
    """What holds for every outcome, whatever was sent; echoes: the caller's own words may show."""
    assert len(outcome.body) <= MAX_OUTPUT_BYTES
    body = json.loads(outcome.body, parse_constant=_no_constant)
    if outcome.error is None:
        assert {"output"} == set(body)
        assert not (isinstance(body["output"], dict) and body["output"].get("error"))
        return
    assert {"error", "output"} == set(body)
    check_sentence(body["error"], echoes=echoes)


def check_sentence(error: str, *, echoes: bool = False) -> None:
    """One line, bounded, and nothing of anybody's inside."""
    assert 0 < len(error) <= MAX_ERROR_CHARACTERS
    assert 1 == len(error.splitlines())
    for word in FORBIDDEN if not echoes else ("worker failed",):
        assert word not in error


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
