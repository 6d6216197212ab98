"""A /chat job: what it asks for, read once, and its history after the reply. Pure.

Facts from text-generation-webui@snapshot-2023-11-05 (extensions/api/util.py, modules/chat.py).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker.contract.characters import Character
from worker.contract.fields import field, flag, read, text
from worker.contract.history import History, parse_history, visible_text
from worker.contract.templates import Template, load_template
from worker.errors import InvalidJob

MODES = ("chat", "chat-instruct", "instruct")
COMMAND = (
    "Continue the chat dialogue below. "
    'Write a single reply for the character "<|character|>".\n\n<|prompt|>'
)
TURN_MARKS = ("<|user-message|>", "<|bot|>", "<|bot-message|>")


@dataclass(frozen=True, slots=True)
class ChatDefaults:
    """What a job that does not say otherwise gets.

    instruction_template: what a job's own name1_instruct, turn_template, ... are put upon.
    """

    name1: str = "You"
    instruction_template: str = "Alpaca"
    command: str = COMMAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A checked /chat job.

    text, visible: the user's turn that is answered ("" to go on with the last reply); asked: the
    caller's history; history: the one that the answer is added to; template: None for the model's
    own, then system is its system message; nothing_to_do: there is no reply to regenerate or to
    continue, the answer is the caller's history.
    """

    text: str
    visible: str
    asked: History
    history: History
    continues: bool
    nothing_to_do: bool
    mode: str
    name1: str
    name2: str
    context: str
    greeting: str
    template: Template | None
    system: str
    command: str

    @property
    def own_template(self) -> bool:
        """Whether the prompt is made by the model's own template."""
        return self.mode != "chat" and self.template is None


def parse_chat(
    body: Mapping[str, Any],
    characters: Callable[[str | None], Character],
    defaults: ChatDefaults | None = None,
) -> Chat:
    """Read a /chat job, its generation parameters aside.

    characters: loads a character by name, None for the default one.
    Raises InvalidJob for what is missing or can't work, UnknownRoute for an unknown character or
    instruction template.
    """
    defaults = defaults or ChatDefaults()
    template = _template(body, defaults)
    character = characters(field(body, text, None, "character"))
    your_name = field(body, text, defaults.name1, "your_name")
    return Chat(
        **_turn(body),
        mode=field(body, _mode, "chat", "mode"),
        name1=field(body, text, character.name1 or your_name, "name1"),
        name2=field(body, text, character.name2, "name2"),
        context=field(body, text, character.context, "context"),
        greeting=field(body, text, character.greeting, "greeting"),
        template=template,
        system=field(body, text, "", "context_instruct"),
        command=field(
            body, text, defaults.command, "chat_instruct_command", "chat-instruct_command"
        ),
    )


def start(chat: Chat) -> dict[str, list[list[str]]]:
    """Give the caller's own history: the answer while, or when, nothing was generated."""
    return chat.asked.as_json()


def update(chat: Chat, reply: str) -> dict[str, list[list[str]]]:
    """Add the reply (what has been generated so far, cut by `trim_stop`) to the history."""
    shown = visible_text(reply, chat.name1)
    if chat.continues:
        before = chat.history.without_last()
        internal, visible = chat.history.internal[-1], chat.history.visible[-1]
        return before.with_pair(
            (internal[0], internal[1] + reply), (visible[0], visible[1] + shown)
        ).as_json()
    if not shown.strip():
        return chat.history.with_pair(("", ""), ("", "")).as_json()
    return chat.history.with_pair(
        (chat.text, reply.lstrip(" ")), (chat.visible, shown.lstrip(" "))
    ).as_json()


def _turn(body: Mapping[str, Any]) -> dict[str, Any]:
    """Which turn is answered, and upon which history."""
    if "user_input" not in body:
        raise InvalidJob("user_input is missing; send the text that the model shall answer")
    said = read("user_input", body["user_input"], text)
    asked = parse_history(body.get("history"))
    regenerate = field(body, flag, False, "regenerate")
    continues = field(body, flag, False, "_continue")
    if regenerate and continues:
        raise InvalidJob("regenerate and _continue are both true; send one of them")
    only_greeting = len(asked.visible) == 1 and not asked.visible[0][0]
    turn = {
        "text": said,
        "visible": html.escape(said),
        "asked": asked,
        "history": asked,
        "continues": continues,
        "nothing_to_do": (regenerate or continues) and (only_greeting or not asked.internal),
    }
    if continues:
        turn.update(text="", visible="")
    elif regenerate and asked.internal:
        turn.update(
            text=asked.internal[-1][0], visible=asked.visible[-1][0], history=asked.without_last()
        )
    return turn


def _template(body: Mapping[str, Any], defaults: ChatDefaults) -> Template | None:
    """Take the named template with the job's own fields upon it; None for the model's own.

    The model's own is meant when no template is named, nor any part of one but the context.
    """
    named = field(body, text, "None", "instruction_template")
    parts = {
        "user": field(body, text, None, "name1_instruct"),
        "bot": field(body, text, None, "name2_instruct"),
        "turn_template": field(body, _turn_template, None, "turn_template") or None,
        "context": field(body, text, None, "context_instruct"),
    }
    if named == "None" and not (parts["user"] or parts["bot"] or parts["turn_template"]):
        return None
    base = load_template(defaults.instruction_template if named == "None" else named)
    return replace(base, **{part: value for part, value in parts.items() if value is not None})


def _turn_template(value: Any) -> str:
    r"""Read a turn template; a written-out \n is a line break, "" the named template's own."""
    places = [text(value).find(mark) for mark in TURN_MARKS]
    if value and (-1 in places or places != sorted(places)):
        raise ValueError(f"text with {', '.join(TURN_MARKS)} in this order")
    return text(value).replace(r"\n", "\n")


def _mode(value: Any) -> str:
    """Read the mode."""
    if value not in MODES:
        raise ValueError(f"one of {', '.join(MODES)}")
    return str(value)
