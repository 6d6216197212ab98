"""The examples in docs/jobs.md, and whether a job's outcome is what its endpoint promises."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.events import Event
from worker.job import parse_job
from worker.output import Outcome

ROOT = Path(__file__).parents[2]
# What the documents call the model; each engine has its own name for it.
DOCUMENTED_MODEL = "SmolLM2-135M-Instruct.Q4_1"
# The LoRA that they name.
LORA = "mine"
_EXAMPLE = re.compile(r"^Example, (.+?):\n\n```json\n(.+?)\n```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(.+?)\]\(.+?\)")
_DONE = Event("", "[DONE]").encode()


@dataclass(frozen=True)
class Example:
    """One example: name: its caption; path: the endpoint that it is for.

    options: the keys of the request's body.
    """

    name: str
    path: str
    job: Mapping[str, Any]
    streamed: bool
    options: frozenset[str]

    def input_for(self, model: str) -> Any:
        """The job's input, with the engine's own name of the model."""
        return json.loads(json.dumps(self.job["input"]).replace(DOCUMENTED_MODEL, model))


def examples() -> list[Example]:
    """All examples, in their order."""
    text = (ROOT / "docs" / "jobs.md").read_text("utf-8")
    found = []
    for caption, block in _EXAMPLE.findall(text):
        job = json.loads(block)
        request = parse_job(job["input"])
        name = _LINK.sub(r"\1", caption)
        found.append(Example(name, request.path, job, request.stream, frozenset(request.body)))
    return found


def cell(example: Example, outcome: Outcome, chunks: list[Any]) -> str:
    """What the table says of this outcome: yes, no with a status, no effect, or what is wrong."""
    if outcome.error is not None:
        return f"no ({outcome.status})"
    output = json.loads(outcome.body)["output"]
    if not _holds(_RIGHT.get(example.path, _RIGHT["/v1/internal/"]), output):
        return f"wrong: {json.dumps(output)[:200]}"
    if example.streamed and not _is_stream(example.path, chunks):
        return f"wrong: the last of {len(chunks)} chunks is {chunks[-1:]}"
    effects = [check for option, check in _EFFECTS.items() if option in example.options]
    return "yes" if all(_holds(check, output) for check in effects) else "no effect"


def _holds(check: Callable[[Any], bool], output: Any) -> bool:
    try:
        return check(output)
    except (KeyError, IndexError, TypeError, ValueError):
        return False


def _is_stream(path: str, chunks: list[Any]) -> bool:
    """Whether parts came, and their end."""
    if path.startswith("/v1/"):
        return chunks != [] and chunks[-1].endswith(_DONE)
    return chunks != [] and chunks[-1]["event"] == "stream_end"


_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "/model": lambda output: isinstance(output["result"], (str, dict, list)),
    "/generate": lambda output: output["results"][0]["text"] != "",
    "/chat": lambda output: output["results"][0]["history"]["internal"][-1][1] != "",
    "/token-count": lambda output: output["results"][0]["tokens"] > 0,
    "/stop-stream": lambda output: output == {"results": "success"},
    "/v1/models": lambda output: output["data"][0]["id"] != "",
    "/v1/completions": lambda output: output["choices"][0]["text"] != "",
    "/v1/chat/completions": lambda output: output["choices"][0]["message"]["content"] != "",
    "/v1/messages": lambda output: output["content"][0]["text"] != "",
    "/v1/responses": lambda output: output["output"][-1]["content"][0]["text"] != "",
    "/v1/internal/": lambda output: output == "OK" or (isinstance(output, dict) and output != {}),
}
# What an option makes of the output.
_EFFECTS: Mapping[str, Callable[[Any], bool]] = {
    "args": lambda output: output["result"]["lora_names"] == [LORA],
    "grammar_string": lambda output: output["results"][0]["text"] in ("yes", "no"),
    "logprobs": lambda output: output["choices"][0]["logprobs"] is not None,
    "response_format": lambda output: (
        json.loads(output["choices"][0]["message"]["content"])["colour"] in ("red", "blue")
    ),
}
