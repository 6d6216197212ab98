"""Many random jobs on an engine that is honest or lies: `scripts/chaos random`.

Where hypothesis (test_properties.py) takes 7 ms to choose an example, a plain random one takes a
fraction of that. Each is made of the seed and its number alone, so that
`scripts/chaos random --seed 1 --first 4711 --jobs 1` runs that one again.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import logging
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chaos.dialect import answer, event
from tests.engine_worlds import classic_world, current_world
from tests.fuzz import (
    EVENT_KEYS,
    EVENT_TYPES,
    HOSTILE,
    INDISCREET,
    KNOWN,
    ROUTES,
    SECRET,
    STREAMED,
    Lie,
    World,
    check,
    world,
)
from worker.engines import textgen_routes
from worker.output import Outcome

WORLDS = {"embedded": world, "current": current_world, "classic": classic_world}
_SHOWN = 20
_OF_TEXTGEN = sorted({path for _, path in textgen_routes.ROUTES})
# What a caller sends may come back in the `error` that refuses it; what an engine says may not.
_TEXTS = ("", "None", "null", "../..", "\0", "a\nb", "日本🎉", "x" * 5000)
_SAID = (INDISCREET, SECRET, "", "日本🎉", "\ud800")
_NUMBERS = (0, 1, -1, 200, 2**31, 2**63, -(2**63), 2**64, 10**400, 1e308, -1e-308)
_BAD_FLOATS = (float("nan"), float("inf"), float("-inf"))
_WORDS = {
    "action": ("", "info", "list", "load", "unload", "?"),
    "mode": ("chat", "chat-instruct", "instruct"),
    "character": ("Assistant", "Example", "None", "../../etc/passwd"),
    "instruction_template": ("None", "Alpaca", "ChatML", "../x"),
    "preset": ("None", "simple-1", "../x"),
}
_BLOCKING = ("/completion", "/v1/completions")
_HONEST = {
    route: [
        json.loads(text.partition("data: ")[2])
        for text in answer("POST", route, {"prompt": "x", "stream": True, "n_predict": 1}).events
        or ()
        if "[DONE]" not in text
    ]
    for route in ("/completion", *STREAMED)
}
_KINDS = ("application/json", "text/event-stream", "text/html", ";;", "\x7f")
_STATUSES = (200, 200, 200, 204, 301, 400, 404, 422, 500, 503)


class Maker:
    """Makes jobs and answers from one source of randomness."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def job(self) -> dict[str, Any]:
        """A job: mostly of the right shape, with anything in it."""
        shape = self._any_input if self._chance(0.03) else self._one((self._api, self._openai))
        job = {"id": "j1", "input": shape()}
        if self._chance(0.1):
            job["policy"] = self._pick(lambda: {"executionTimeout": self._number()}, self._value)
        return job

    def lie(self, job: Mapping[str, Any]) -> Lie | None:
        """What the engine sends in place of its answer to a job, None for its honest one."""
        if self._chance(0.6):
            return None
        route = _route_of(job)
        said = self._pick(self._said_json, lambda: self._said_events(route), self._bytes)
        if self._chance(0.5):
            return Lie(kind="text/event-stream", body=said, keep=self._below(6))
        return Lie(
            status=self._one(_STATUSES), kind=self._one(_KINDS), body=said, keep=self._below(6)
        )

    def _api(self) -> dict[str, Any]:
        method = self._one((*["POST"] * 20, "GET", "PUT", 1))
        return {"api": {"method": method, "endpoint": self._route()}, "payload": self._payload()}

    def _openai(self) -> dict[str, Any]:
        return {"openai_route": self._route(), "openai_input": self._payload()}

    def _any_input(self) -> Any:
        keys = ("api", "payload", "openai_route", "openai_input")
        return self._pick(self._value, lambda: {self._one(keys): self._value() for _ in range(3)})

    def _route(self) -> Any:
        if self._chance(0.05):
            return self._value()
        if self._chance(0.2):
            return self._one(_OF_TEXTGEN)
        return self._one(HOSTILE) if self._chance(0.05) else self._one(ROUTES)

    def _payload(self) -> Any:
        if self._chance(0.02):
            return self._value()
        payload: dict[str, Any] = {"prompt": self._text(), "max_new_tokens": self._below(10)}
        if self._chance(0.9):
            payload |= {"user_input": self._text(), "history": self._history()}
        if self._chance(0.5):
            payload["messages"] = [
                {"role": self._one(("system", "user", "assistant", "?")), "content": self._text()}
                for _ in range(self._below(4))
            ]
        payload |= {name: self._one(words) for name, words in _WORDS.items() if self._chance(0.2)}
        if self._chance(0.4):
            payload["stream"] = True
        for _ in range(self._one((0, 0, 1, 2, 3))):
            payload[self._one(KNOWN)] = self._value()
        if self._chance(0.05):
            del payload[self._one(tuple(payload))]
        return payload

    def _history(self) -> Any:
        if self._chance(0.1):
            return self._value()
        turns = [[self._text(), self._text()] for _ in range(self._below(4))]
        return {"internal": turns, "visible": turns if self._chance(0.8) else self._value()}

    def _value(self, room: int = 4) -> Any:
        """Any JSON, and what Python takes for JSON."""
        if room and self._chance(0.3):
            return [self._value(room - 1) for _ in range(self._below(4))]
        if room and self._chance(0.3):
            return {self._key(): self._value(room - 1) for _ in range(self._below(4))}
        if self._chance(0.01):
            return self._deep()
        return self._pick(lambda: None, lambda: True, lambda: False, self._number, self._text)

    def _key(self) -> str:
        return str(self._one(KNOWN)) if self._chance(0.5) else self._text()

    def _deep(self) -> Any:
        deep: Any = "x"
        for _ in range(self._one((50, 500, 1500))):
            deep = [deep] if self._chance(0.5) else {"x": deep}
        return deep

    def _number(self) -> Any:
        return self._pick(
            lambda: self._source.randint(-3, 3000),
            lambda: self._source.uniform(-2, 3),
            lambda: self._one(_NUMBERS),
            lambda: self._one(_BAD_FLOATS),
        )

    def _text(self) -> str:
        if self._chance(0.001):
            return str(self._one("a\0é日\ud800")) * self._source.randint(10**5, 4 * 10**6)
        if self._chance(0.5):
            return str(self._one(_TEXTS))
        if self._chance(0.01):
            return "\ud800"
        letters = range(32, 127) if self._chance(0.7) else range(0xD800)
        return "".join(chr(self._one(letters)) for _ in range(self._below(30)))

    def _bytes(self) -> bytes:
        return self._source.randbytes(self._below(60))

    def _said_json(self) -> bytes:
        return json.dumps(self._said()).encode()

    def _said_events(self, route: str) -> bytes:
        almost = functools.partial(self._almost_honest, route)
        makers = (almost, almost, self._said, lambda: self._one(_SAID))
        said = (self._pick(*makers) for _ in range(self._below(6)))
        return "".join(map(event, said)).encode("utf-8", "surrogatepass")

    def _almost_honest(self, route: str) -> Any:
        """An honest event with something else in one place of it."""
        honest = copy.deepcopy(
            self._one(_HONEST[route if route in _HONEST else self._one(_BLOCKING)])
        )
        place = honest
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = self._one(keys)
            if not isinstance(place[key], (dict, list)) or not place[key] or self._chance(0.3):
                place[key] = self._said(2)
                return honest
            place = place[key]

    def _said(self, room: int = 4) -> Any:
        """What looks like something that an engine says."""
        if not room or self._chance(0.3):
            return self._pick(lambda: self._one((*EVENT_TYPES, *_SAID)), self._number)
        if self._chance(0.2):
            return [self._said(room - 1) for _ in range(self._below(3))]
        return {self._one(EVENT_KEYS): self._said(room - 1) for _ in range(self._below(5))}

    def _pick(self, *makers: Callable[[], Any]) -> Any:
        return self._source.choice(makers)()

    def _one(self, values: Sequence[Any]) -> Any:
        return self._source.choice(values)

    def _below(self, bound: int) -> int:
        return self._source.randrange(bound)

    def _chance(self, of_one: float) -> bool:
        return self._source.random() < of_one


def _route_of(job: Mapping[str, Any]) -> str:
    """The endpoint that a job names, "" for none."""
    job_input = job.get("input")
    named = job_input.get("api", job_input) if isinstance(job_input, dict) else None
    route = named.get("endpoint", named.get("openai_route")) if isinstance(named, dict) else None
    return route if isinstance(route, str) else ""


def run_one(whole: World, maker: Maker) -> Outcome:
    """Run one job; AssertionError or asyncio.TimeoutError for one that is not answered well."""
    job = maker.job()
    lie = maker.lie(job)
    outcome, _ = whole.run(job, lie)
    check(outcome)
    assert whole.slots.idle, "a slot is still taken"
    return outcome


def run(seed: int, first: int, jobs: int, engine: str = "embedded") -> int:
    """Run them, print what was seen, and return how many were not answered well."""
    ends: Counter[str] = Counter()
    slowest = (0.0, 0)
    faults = 0
    started = time.monotonic()
    with WORLDS[engine]() as whole:
        for number in range(first, first + jobs):
            begun = time.monotonic()
            try:
                outcome = run_one(whole, Maker(random.Random(f"{seed}/{number}")))  # noqa: S311  # no secret
                ends[str(outcome.status)] += 1
            except Exception as fault:  # noqa: BLE001  # counted and shown; the others run on
                faults += 1
                if faults <= _SHOWN:
                    print(f"job {number}: {type(fault).__name__}: {str(fault)[:500]}", flush=True)  # noqa: T201
            slowest = max(slowest, (time.monotonic() - begun, number))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(  # noqa: T201 - this is what it is for
        f"{jobs} random jobs (seed {seed}, {engine}) in {time.monotonic() - started:.0f} s: "
        f"{faults} not answered well; by status {dict(sorted(ends.items()))}; "
        f"slowest {slowest[0]:.2f} s (job {slowest[1]}); memory {memory} MB at most"
    )
    return faults


def main(arguments: Sequence[str]) -> int:
    """1 when a job was not answered well."""
    parser = argparse.ArgumentParser(prog="scripts/chaos random", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--seed", type=int, default=1, help="of which kind (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (0)")
    parser.add_argument("--engine", choices=WORLDS, default="embedded", help="(embedded)")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    return 1 if run(options.seed, options.first, options.jobs, options.engine) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
