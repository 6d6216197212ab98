"""A worker process whose jobs say themselves what happens in them; run as a module."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from worker.errors import InvalidJob
from worker.output import Outcome, completed, failed
from worker.runpod_loop import serve
from worker.runpod_sdk import load_sdk
from worker.serving import Limits
from worker.stock_loop import serve_stock
from worker.stream import Merge, Sink


class ScriptedRunner:
    """Answers a job with its input, `chunks` words and `seconds` later; fails one without input."""

    async def run(self, job: Mapping[str, Any], sink: Sink) -> Outcome:
        """Do what the job's input says."""
        script = job.get("input")
        if not isinstance(script, dict):
            return failed(InvalidJob("the job's input must be an object"))
        try:
            for number in range(script.get("chunks", 0)):
                await sink.put(f"w{number} ", 4)
                await asyncio.sleep(script.get("gap", 0))
            await asyncio.sleep(script.get("seconds", 0))
            if script.get("crash"):
                raise ValueError("a bug of the runner")
        except asyncio.CancelledError:
            print(f"cancelled {job['id']}", flush=True)  # noqa: T201  # read by the tests
            raise
        return completed(script)

    def wants_stream(self, job: Mapping[str, Any]) -> bool:
        """Stream what has chunks."""
        script = job.get("input")
        return isinstance(script, dict) and "chunks" in script and not script.get("quiet")

    def merger(self) -> Merge:
        """Join the words."""
        return lambda events: ["".join(events)]


async def main(options: dict[str, Any]) -> int:
    """Serve until the end; `options`: capacity, grace, stock, fatal_after, closed and limits."""
    sdk = load_sdk()
    gate, fatal = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(options.get("closed", 0), gate.set)
    if "fatal_after" in options:
        loop.call_later(options["fatal_after"], fatal.set)
    common: dict[str, Any] = {
        "sdk": sdk,
        "capacity": options.get("capacity", 1),
        "grace_period": options.get("grace", 5.0),
        "gate": gate,
        "fatal": fatal,
    }
    if options.get("stock"):
        return await serve_stock(ScriptedRunner(), **common)
    return await serve(ScriptedRunner(), **common, limits=Limits(**options.get("limits", {})))


if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stdout)
    sys.exit(asyncio.run(main(json.loads(sys.argv[1]))))
