from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from worker.contract.characters import load_character
from worker.contract.chat import Chat, parse_chat
from worker.contract.chat_prompt import (
    build,
    fit,
    max_dropped,
    messages,
    prompt,
    stopping_strings,
    trim_stop,
)
from worker.engines.backend import Message

TWO = {
    "internal": [["<|BEGIN-VISIBLE-CHAT|>", "Hi."], ["u1 ", " b1 "]],
    "visible": [["", "Hi."], ["u1 ", " b1 "]],
}
NAMES = {"name1": "Tom", "name2": "Ada", "context": " {{char}} helps <USER>. "}
TURN = "<|user|>: <|user-message|>\n<|bot|>: <|bot-message|>\n"
INSTRUCT = {
    "name1_instruct": "Q",
    "name2_instruct": "A",
    "context_instruct": "Facts.\n",
    "turn_template": TURN,
}


def parse(**body: Any) -> Chat:
    return parse_chat({"user_input": " u2 ", **body}, lambda name: load_character(name, None))


def test_a_chat_is_names_and_messages_after_the_context() -> None:
    expected = "Ada helps Tom.\nAda: Hi.\nTom: u1\nAda: b1\nTom: u2\nAda:"
    assert expected == prompt(parse(history=TWO, **NAMES))


def test_a_chat_goes_on_with_the_last_reply() -> None:
    expected = "Ada helps Tom.\nAda: Hi.\nTom: u1\nAda: b1"
    assert expected == prompt(parse(history=TWO, _continue=True, **NAMES))


def test_to_regenerate_leaves_the_last_reply_out() -> None:
    expected = "Ada helps Tom.\nAda: Hi.\nTom: u1\nAda:"
    assert expected == prompt(parse(history=TWO, regenerate=True, **NAMES))


def test_an_empty_turn_is_no_row() -> None:
    assert "Ada helps Tom.\nAda:" == prompt(parse(user_input="", **NAMES))


def test_instruct_has_the_templates_names_and_context() -> None:
    expected = "Facts.\nA: Hi.\nQ: u1\nA: b1\nQ: u2\nA:"
    assert expected == prompt(parse(mode="instruct", history=TWO, **INSTRUCT))


def test_instruct_goes_on_with_the_last_reply() -> None:
    expected = "Facts.\nA: Hi.\nQ: u1\nA: b1"
    assert expected == prompt(parse(mode="instruct", history=TWO, _continue=True, **INSTRUCT))


def test_instruct_with_a_template_of_special_tokens() -> None:
    expected = (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nu2<|im_end|>\n<|im_start|>assistant\n"
    )
    assert expected == prompt(parse(mode="instruct", instruction_template="ChatML"))


def test_rounds_are_counted_where_the_template_wants_it() -> None:
    chat = parse(
        mode="instruct",
        instruction_template="ChatGLM",
        history=TWO,
        name2_instruct="A:",
        name1_instruct="[Round <|round|>]\nQ:",
    )
    assert "A:Hi.\n[Round 1]\nQ:u1\nA:b1\n[Round 2]\nQ:u2\nA:" == prompt(chat)


def test_chat_instruct_wraps_the_chat_in_a_command() -> None:
    chat = parse(
        mode="chat-instruct",
        history=TWO,
        chat_instruct_command="Be <|character|>.\n<|prompt|>",
        **NAMES,
        **INSTRUCT,
    )
    expected = "Facts.\nQ: Be Ada.\nAda helps Tom.\nAda: Hi.\nTom: u1\nAda: b1\nTom: u2\n\nA: Ada:"
    assert expected == prompt(chat)


def test_chat_instruct_goes_on_with_the_last_reply_after_the_command() -> None:
    chat = parse(
        mode="chat-instruct",
        history=TWO,
        _continue=True,
        chat_instruct_command="<|prompt|>",
        **NAMES,
        **INSTRUCT,
    )
    expected = "Facts.\nQ: Ada helps Tom.\nAda: Hi.\nTom: u1\n\nA: Ada:  b1 "
    assert expected == prompt(chat)


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        (1, "Ada helps Tom.\nTom: u1\nAda: b1\nTom: u2\nAda:"),
        (3, "Ada helps Tom.\nTom: u2\nAda:"),
    ],
)
def test_the_oldest_rows_are_dropped_and_the_context_stays(dropped: int, expected: str) -> None:
    chat = parse(history=TWO, **NAMES)
    assert (expected, 3) == (prompt(chat, dropped), max_dropped(chat))


def test_three_rows_always_stay() -> None:
    assert 0 == max_dropped(parse(**NAMES))


async def fitted(chat: Chat, max_tokens: int) -> tuple[str, int]:
    """The fitted prompt, one token a character, and how many prompts were counted."""
    counted = 0

    async def prompt_of(dropped: int) -> str:
        return prompt(chat, dropped)

    async def count(text: str) -> int:
        nonlocal counted
        counted += 1
        return len(text)

    return await fit(prompt_of, max_dropped(chat), max_tokens, count), counted


async def test_a_prompt_that_fits_is_counted_once() -> None:
    chat = parse(history=TWO, **NAMES)
    whole = prompt(chat)
    assert (whole, 1) == await fitted(chat, len(whole) + 1)


@pytest.mark.parametrize("dropped", range(1, 41))
async def test_no_more_rows_are_dropped_than_must(dropped: int) -> None:
    pairs = [[f"u{n}", f"b{n}"] for n in range(20)]
    chat = parse(history={"internal": pairs, "visible": pairs}, **NAMES)
    expected = prompt(chat, min(dropped, max_dropped(chat)))
    text, counted = await fitted(chat, len(expected) + 1)
    assert (expected, True) == (text, counted <= 7)


async def test_a_prompt_as_long_as_the_limit_does_not_fit() -> None:
    chat = parse(history=TWO, **NAMES)
    assert prompt(chat, 1) == (await fitted(chat, len(prompt(chat))))[0]


async def test_where_nothing_fits_the_last_rows_stay() -> None:
    chat = parse(history=TWO, **NAMES)
    assert prompt(chat, 3) == (await fitted(chat, 1))[0]


def test_the_models_own_template_gets_messages() -> None:
    chat = parse(mode="instruct", history=TWO, context_instruct="Be brief.")
    expected = [
        Message("system", "Be brief."),
        Message("assistant", "Hi."),
        Message("user", "u1"),
        Message("assistant", "b1"),
        Message("user", "u2"),
    ]
    assert expected == messages(chat)


def test_messages_are_dropped_by_rounds() -> None:
    chat = parse(mode="instruct", history=TWO)
    expected = [Message("user", "u1"), Message("assistant", "b1"), Message("user", "u2")]
    assert (expected, 2) == (messages(chat, 1), max_dropped(chat))


def test_the_round_to_continue_is_never_dropped() -> None:
    assert 1 == max_dropped(parse(mode="instruct", history=TWO, _continue=True))


def test_a_chat_of_nothing_is_one_empty_message() -> None:
    assert [Message("user", "")] == messages(parse(mode="instruct", user_input=""))


async def render(turns: Sequence[Message], *, continue_last: bool) -> str:
    """A template of its own: role and content, open at the end when the last is continued."""
    rendered = "".join(f"<{turn.role}>{turn.content}" for turn in turns)
    return rendered if continue_last else rendered + "<assistant>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"mode": "instruct"}, "<assistant>Hi.<user>u1<assistant>b1<user>u2<assistant>"),
        ({"mode": "instruct", "_continue": True}, "<assistant>Hi.<user>u1<assistant>b1"),
        (
            {"mode": "chat-instruct", "chat_instruct_command": "Be <|character|>: <|prompt|>"},
            "<user>Be Ada: Ada helps Tom.\nAda: Hi.\nTom: u1\nAda: b1\nTom: u2\n<assistant>Ada:",
        ),
        (
            {"mode": "chat-instruct", "chat_instruct_command": "<|prompt|>", "_continue": True},
            "<user>Ada helps Tom.\nAda: Hi.\nTom: u1\n<assistant>Ada:  b1 ",
        ),
        ({"mode": "chat"}, "Ada helps Tom.\nAda: Hi.\nTom: u1\nAda: b1\nTom: u2\nAda:"),
    ],
)
async def test_the_engine_renders_only_for_its_own_template(
    body: dict[str, Any], expected: str
) -> None:
    assert expected == await build(parse(history=TWO, **NAMES, **body), 0, render)


async def test_an_empty_reply_to_continue_is_a_new_turn_of_the_assistant() -> None:
    pairs = [["u1", ""]]
    chat = parse(mode="instruct", _continue=True, history={"internal": pairs, "visible": pairs})
    assert "<user>u1<assistant>" == await build(chat, 0, render)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ["\nTom:", "\nAda:", "END"]),
        ({"mode": "instruct"}, ["END"]),
        ({"mode": "chat-instruct"}, ["\nTom:", "\nAda:", "END"]),
        (
            {"mode": "instruct", "instruction_template": "Alpaca"},
            ["\n\n### Response:", "\n\n### Instruction:", "END"],
        ),
        (
            {"mode": "chat-instruct", "instruction_template": "Vicuna-v1.1"},
            ["\nASSISTANT:", "</s>\nUSER:", "\nTom:", "\nAda:", "END"],
        ),
        (
            {"mode": "instruct", "instruction_template": "Llama-v2"},
            [" [/INST]", " </s><s>[INST]", "END"],
        ),
        (
            {"mode": "instruct", **INSTRUCT, "name1_instruct": "", "name2_instruct": ""},
            ["\n", "\n", "END"],
        ),
        ({"mode": "instruct", "instruction_template": "Galactica Q"}, ["\n\nA:", "\n\nQ:", "END"]),
    ],
)
def test_the_reply_ends_before_the_next_turn(body: dict[str, Any], expected: list[str]) -> None:
    assert expected == stopping_strings(parse(**NAMES, **body), ["END"])


def test_an_empty_stop_is_none() -> None:
    turn = "<|user|><|user-message|><|bot|><|bot-message|>"
    names = {"name1_instruct": "", "name2_instruct": ""}
    assert [] == stopping_strings(
        parse(mode="instruct", instruction_template="Alpaca", turn_template=turn, **names)
    )


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one\nYou: two", ["\nYou:"], ("one", True)),
        ("a b c", ["c", "b"], ("a b ", True)),
        ("one\nYo", ["\nYou:"], ("one", False)),
        ("one\n", ["END", "\nYou:"], ("one", False)),
        ("one", ["\nYou:"], ("one", False)),
        ("one", [], ("one", False)),
        ("", ["x"], ("", False)),
    ],
)
def test_a_reply_is_cut_at_a_stop_or_its_start(
    text: str, stops: list[str], expected: tuple[str, bool]
) -> None:
    assert expected == trim_stop(text, stops)
