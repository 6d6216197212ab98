"""The prompt of a chat: rows of text, the oldest of which are dropped until it fits. Pure.

Facts from text-generation-webui@snapshot-2023-11-05 (modules/chat.py: get_turn_substrings,
generate_chat_prompt, get_stopping_strings; modules/text_generation.py: apply_stopping_strings).
One thing differs: where not even the context fits, the last rows stay in the prompt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.contract.chat import Chat
from worker.contract.history import BEGIN
from worker.contract.templates import Template
from worker.engines.backend import Message

_CHAT_TURN = "<|user|>: <|user-message|>\n<|bot|>: <|bot-message|>\n"
_KEPT_ROWS = 3


class Render(Protocol):
    """How an engine puts messages in the model's own template (`Backend.render`)."""

    def __call__(self, messages: Sequence[Message], /, *, continue_last: bool) -> Awaitable[str]:
        """Return the prompt, ready for the assistant's turn or the rest of its last message."""
        ...


@dataclass(frozen=True, slots=True)
class _Turns:
    """The text of one round, names filled in: both turns, and the bot's up to its message."""

    user: str
    bot: str
    prefix: str


async def fit(
    build: Callable[[int], Awaitable[str]],
    max_dropped: int,
    max_tokens: int,
    count: Callable[[str], Awaitable[int]],
) -> str:
    """Find the prompt with the fewest dropped rows that has fewer than max_tokens.

    When none has, it is the one with max_dropped. The whole prompt is counted first, which is all
    there is to do for most jobs; else as many counts as a binary search takes.
    """
    whole = await build(0)
    if max_dropped == 0 or await count(whole) < max_tokens:
        return whole
    low, high = 1, max_dropped
    while low < high:
        middle = (low + high) // 2
        if await count(await build(middle)) < max_tokens:
            high = middle
        else:
            low = middle + 1
    return await build(low)


async def build(chat: Chat, dropped: int, render: Render) -> str:
    """Make the prompt without its `dropped` oldest rows, or rounds in the model's own template."""
    if not chat.own_template:
        return prompt(chat, dropped)
    turns = messages(chat, dropped)
    continue_last = chat.mode == "instruct" and chat.continues and turns[-1].role == "assistant"
    return await render(turns, continue_last=continue_last) + suffix(chat)


def max_dropped(chat: Chat) -> int:
    """How many of the oldest rows or rounds may be dropped."""
    if chat.own_template and chat.mode == "instruct":
        return max(0, len(chat.history.internal) - chat.continues)
    return max(0, len(_rows(chat)) - _KEPT_ROWS)


def prompt(chat: Chat, dropped: int = 0) -> str:
    """Make the prompt of a chat with a template, without its `dropped` oldest rows."""
    rows = _joined(_rows(chat), dropped)
    if chat.mode != "chat-instruct" or chat.template is None:
        return rows
    instruct = _turns(chat, instruct=True)
    wrapper = (
        chat.template.context
        + instruct.user.replace("<|user-message|>", _command(chat))
        + instruct.prefix
        + suffix(chat)
    )
    return wrapper.replace("<|prompt|>", rows)


def messages(chat: Chat, dropped: int = 0) -> list[Message]:
    """Make the messages for the model's own template, without the `dropped` oldest rounds.

    There is at least one. In mode chat-instruct it is a user message with the command, and
    `suffix` follows the prompt.
    """
    system = [Message("system", chat.system)] if chat.system.strip() else []
    if chat.mode == "chat-instruct":
        content = _command(chat).replace("<|prompt|>", _joined(_rows(chat), dropped))
        return [*system, Message("user", content)]
    turns = [
        Message(role, content.strip())
        for pair in chat.history.internal[dropped:]
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    turns.append(Message("user", chat.text.strip()))
    said = [turn for turn in turns if turn.content not in ("", BEGIN)]
    return [*system, *(said or [Message("user", "")])]


def suffix(chat: Chat) -> str:
    """Make what follows in mode chat-instruct: the bot's name, and a reply to go on with."""
    if chat.mode != "chat-instruct":
        return ""
    prefix = _turns(chat, instruct=False).prefix
    return prefix + chat.history.internal[-1][1] if chat.continues else prefix.rstrip(" ")


def stopping_strings(chat: Chat, callers: Sequence[str] = ()) -> list[str]:
    """List where the reply ends: before the next turn, and at the caller's own strings."""
    stops: list[str] = []
    if chat.mode != "chat" and chat.template is not None:
        names = (chat.template.user, chat.template.bot)
        turn = chat.template.turn_template
        ends = (
            turn.split("<|user-message|>")[1].split("<|bot|>")[0] + "<|bot|>",
            turn.split("<|bot-message|>")[1] + "<|user|>",
        )
        stops += [_named(end, *names).rstrip(" ").replace(r"\n", "\n") for end in ends]
    if chat.mode != "instruct":
        stops += [f"\n{chat.name1}:", f"\n{chat.name2}:"]
    return [stop for stop in (*stops, *callers) if stop]


def trim_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut the text at the first of the stops that is in it, and tell whether one is.

    When none is, what may be the start of one is cut off the end.
    """
    for stop in stops:
        if stop in text:
            return text[: text.index(stop)], True
    for stop in stops:
        for length in range(len(stop) - 1, 0, -1):
            if text.endswith(stop[:length]):
                return text[:-length], False
    return text, False


def _rows(chat: Chat) -> list[str]:
    """List the context, every turn of the history, and the turn that is answered."""
    instruct = chat.mode == "instruct"
    turns = _turns(chat, instruct=instruct)
    pairs = chat.history.internal
    rows = [_context(chat)]
    for number, (said, reply) in enumerate(pairs):
        if said not in ("", BEGIN):
            rows.append(_user_row(turns, said, number))
        if not (chat.continues and number == len(pairs) - 1):
            rows.append(turns.bot.replace("<|bot-message|>", reply.strip()))
        elif chat.mode != "chat-instruct":
            rows.append(turns.prefix + reply.strip())
    if chat.continues:
        return rows
    if chat.text:
        rows.append(_user_row(turns, chat.text, len(pairs)))
    if chat.mode != "chat-instruct":
        rows.append(turns.prefix.rstrip(" "))
    return rows


def _user_row(turns: _Turns, said: str, number: int) -> str:
    """Make the user's turn; `number` is its round, counted from 0."""
    return turns.user.replace("<|user-message|>", said.strip()).replace("<|round|>", str(number))


def _joined(rows: Sequence[str], dropped: int) -> str:
    """Join all rows but the `dropped` oldest; the context stays."""
    return "".join((rows[0], *rows[1 + dropped :]))


def _context(chat: Chat) -> str:
    """Make what comes before the first turn."""
    if chat.mode == "instruct" and chat.template is not None:
        return chat.template.context
    text = f"{chat.context.strip()}\n"
    text = text.replace("{{user}}", chat.name1).replace("{{char}}", chat.name2)
    return text.replace("<USER>", chat.name1).replace("<BOT>", chat.name2)


def _command(chat: Chat) -> str:
    """Make what mode chat-instruct asks the model to do."""
    return chat.command.replace("<|character|>", chat.name2)


def _turns(chat: Chat, *, instruct: bool) -> _Turns:
    """One round of the instruction template, or of the plain chat."""
    template = Template(chat.name1, chat.name2, _CHAT_TURN)
    if instruct and chat.template is not None:
        template = chat.template
    user, bot = template.turn_template.split("<|bot|>")[:2]
    names = (template.user.strip(), template.bot.strip())
    bot = "<|bot|>" + bot
    return _Turns(
        user=_named(user, *names),
        bot=_named(bot, *names),
        prefix=_named(bot.split("<|bot-message|>")[0], *names),
    )


def _named(text: str, user: str, bot: str) -> str:
    """Put both names in their places."""
    return text.replace("<|user|>", user).replace("<|bot|>", bot)
