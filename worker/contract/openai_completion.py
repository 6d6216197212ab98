"""OpenAI's completion requests, for an engine that only knows the blocking API. Pure.

Shapes: https://platform.openai.com/docs/api-reference/completions and .../chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.contract.chat import Chat
from worker.contract.chat_prompt import prompt, stopping_strings
from worker.contract.fields import Number, Whole, field, flag
from worker.contract.history import History, Pair
from worker.contract.parameters import TABLE
from worker.contract.templates import Template
from worker.errors import InvalidJob

DEFAULT_MAX_TOKENS = 512
# Asked for by name -> what is asked for; refused unless it is empty or switched off.
_CANT: Mapping[str, str] = {
    "tools": "tools",
    "functions": "functions",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "logit_bias": "a logit bias",
    "suffix": "a suffix",
    "grammar": "a llama.cpp grammar (grammar_string is what it takes)",
}
# Where a system message has a place of its own in a template's context.
_SYSTEM_PLACES = (
    re.compile(r"(<\|im_start\|>system\n).*?(<\|im_end\|>)", re.DOTALL),
    re.compile(r"(<<SYS>>\n).*?(\n<</SYS>>)", re.DOTALL),
    re.compile(r"(### System:\n).*?(\n*)\Z", re.DOTALL),
    re.compile(r"(<\|system\|>\n).*?(<\|end\|>)", re.DOTALL),
    re.compile(r"(<\|(?:system|SYSTEM)\|>).*?()\Z", re.DOTALL),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. sampling: the blocking API's parameters, the prompt's length not yet known.

    prompt: None for a chat. max_tokens: None where the caller does not say.
    """

    prompt: str | None
    messages: Sequence[tuple[str, str]]
    max_tokens: int | None
    stop: tuple[str, ...]
    sampling: Mapping[str, Any]
    echo: bool
    include_usage: bool


def parse_completion(body: Mapping[str, Any]) -> Asked:
    """Read a /v1/completions request. Raises InvalidJob."""
    wanted = body.get("prompt")
    if isinstance(wanted, list) and len(wanted) == 1:
        wanted = wanted[0]
    if not isinstance(wanted, str):
        raise InvalidJob("prompt must be one string on this engine; send a job for each prompt")
    return _asked(body, wanted, ())


def parse_chat_completion(body: Mapping[str, Any]) -> Asked:
    """Read a /v1/chat/completions request. Raises InvalidJob."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidJob('messages is missing; send [{"role": "user", "content": "..."}]')
    return _asked(body, None, [_message(message) for message in messages])


def _asked(
    body: Mapping[str, Any], wanted: str | None, messages: Sequence[tuple[str, str]]
) -> Asked:
    for name, thing in _CANT.items():
        if body.get(name) not in (None, False, 0, "", [], {}):
            raise InvalidJob(f"{name}: this engine can't give {thing}; leave it out")
    for name in ("n", "best_of"):
        if field(body, Whole(1), 1, name) != 1:
            raise InvalidJob(f"{name} must be 1 on this engine; send the job again for another one")
    kind = body.get("response_format")
    if isinstance(kind, dict) and kind.get("type", "text") != "text":
        raise InvalidJob("response_format must be text on this engine; use grammar_string")
    options = body.get("stream_options") or {}
    return Asked(
        prompt=wanted,
        messages=messages,
        max_tokens=field(body, Whole(1), None, "max_tokens", "max_completion_tokens"),
        stop=_stop(body.get("stop")),
        sampling=_sampling(body),
        echo=field(body, flag, False, "echo"),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """The blocking API's parameters: OpenAI's defaults, what it has no name for as it is."""
    temperature = field(body, Number(0), 1.0, "temperature")
    defaults = {"temperature": temperature, "top_p": 1.0, "repetition_penalty": 1.0}
    given = {name: body[name] for name in TABLE if body.get(name) is not None}
    if temperature == 0:
        given = {**given, "do_sample": False}
        defaults.pop("temperature")
        given.pop("temperature", None)
    return {**defaults, **given}


def _stop(value: Any) -> tuple[str, ...]:
    """Read `stop`: a string, or a list of them; an empty one is refused as on the other engines."""
    strings = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
        raise InvalidJob("stop must be a string or a list of strings")
    if "" in strings:
        raise InvalidJob("stop holds an empty string; leave it out")
    return tuple(strings)


def _message(message: Any) -> tuple[str, str]:
    """Read one message: role and text."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("system", "developer", "user", "assistant"):
        raise InvalidJob("each message must be an object with role system, user or assistant")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise InvalidJob("each message's content must be a string")
    return ("system" if role == "developer" else role), content


def _part(part: Any) -> str:
    """The text of a part of a message."""
    if not isinstance(part, dict) or part.get("type") != "text":
        raise InvalidJob("a message's content can only be text on this engine")
    return str(part.get("text") or "")


def chat_of(asked: Asked, template: Template) -> Chat:
    """The messages as a chat in mode instruct; a last assistant's message is gone on with."""
    system = "\n".join(content for role, content in asked.messages if role == "system")
    pairs, last = _pairs([turn for turn in asked.messages if turn[0] != "system"])
    if system:
        template = Template(
            template.user,
            template.bot,
            template.turn_template,
            system_context(template.context, system),
        )
    history = History(tuple(pairs), tuple(pairs))
    return Chat(
        text=last or "",
        visible=last or "",
        asked=history,
        history=history,
        continues=last is None and bool(pairs),
        nothing_to_do=False,
        mode="instruct",
        name1="You",
        name2="Assistant",
        context="",
        greeting="",
        template=template,
        system="",
        command="",
    )


def _pairs(turns: Sequence[tuple[str, str]]) -> tuple[list[Pair], str | None]:
    """Rounds of user and assistant, and the user's last turn, None when an assistant's is last.

    Turns of the same role in a row are one turn.
    """
    pairs: list[Pair] = []
    waiting: str | None = None
    before = ""
    for role, content in turns:
        if role == "user":
            waiting = content if waiting is None else f"{waiting}\n\n{content}"
        elif before == "assistant":
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]}\n\n{content}")
        else:
            pairs.append((waiting or "", content))
            waiting = None
        before = role
    return pairs, waiting


def system_context(context: str, system: str) -> str:
    """A template's context with this system message in place of its own."""
    for place in _SYSTEM_PLACES:
        if match := place.search(context):
            return context[: match.end(1)] + system + context[match.start(2) :]
    ending = context[len(context.rstrip()) :] or "\n"
    return system + ending


def chat_prompt(asked: Asked, template: Template) -> tuple[str, list[str]]:
    """The prompt of a chat, and where its answer ends."""
    chat = chat_of(asked, template)
    return prompt(chat), stopping_strings(chat, asked.stop)


def max_tokens(asked: Asked, prompt_tokens: int, context: int) -> int:
    """How many tokens may be generated. Raises InvalidJob, with both lengths, where there is none.

    What the caller asks for is cut to what the context has room for.
    """
    room = context - prompt_tokens
    if room < 1:
        raise InvalidJob(
            f"the prompt has {prompt_tokens} tokens and the context holds {context}; shorten the "
            "prompt"
        )
    return min(asked.max_tokens or DEFAULT_MAX_TOKENS, room)
