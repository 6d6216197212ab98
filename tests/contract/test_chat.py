from __future__ import annotations

import copy
from typing import Any

import pytest

from worker.contract.characters import Character, load_character
from worker.contract.chat import COMMAND, Chat, ChatDefaults, parse_chat, start, update
from worker.contract.templates import Template, load_template
from worker.errors import InvalidJob, UnknownRoute

ONE = {"internal": [["a", "b"]], "visible": [["va", "vb"]]}
GREETING = {"internal": [["<|BEGIN-VISIBLE-CHAT|>", "Hi."]], "visible": [["", "Hi."]]}


def parse(**body: Any) -> Chat:
    return parse_chat({"user_input": "Q", **body}, lambda name: load_character(name, None))


def test_a_job_with_a_question_alone_is_a_chat_with_the_assistant() -> None:
    chat = parse()
    assert ("Q", "chat", "You", "AI", "How can I help you today?", None, COMMAND, False) == (
        chat.text,
        chat.mode,
        chat.name1,
        chat.name2,
        chat.greeting,
        chat.template,
        chat.command,
        chat.nothing_to_do,
    )


def test_the_characters_fields_can_be_replaced() -> None:
    chat = parse(character="Example", name1="Tom", name2="Ada", context="C", greeting="G")
    assert ("Tom", "Ada", "C", "G") == (chat.name1, chat.name2, chat.context, chat.greeting)


def test_your_name_holds_where_neither_the_character_nor_name1_names_the_user() -> None:
    def named(name: str | None) -> Character:
        return Character(name, "Bot", "", "")

    body = {"user_input": "Q", "your_name": "Tom"}
    names = [
        parse_chat(body, lambda _: named(None)).name1,
        parse_chat(body, lambda _: named("Zoe")).name1,
        parse_chat({**body, "name1": "Eve"}, lambda _: named("Zoe")).name1,
    ]
    assert ["Tom", "Zoe", "Eve"] == names


def test_the_defaults_are_the_workers() -> None:
    defaults = ChatDefaults(name1="Me", instruction_template="ChatML", command="Do")
    body = {"user_input": "Q", "name1_instruct": "x"}
    chat = parse_chat(body, lambda name: load_character(name, None), defaults)
    assert chat.template is not None
    assert ("Me", "x", "assistant", "Do") == (
        chat.name1,
        chat.template.user,
        chat.template.bot,
        chat.command,
    )


@pytest.mark.parametrize("key", ["chat_instruct_command", "chat-instruct_command"])
def test_the_command_has_two_names(key: str) -> None:
    assert "Do" == parse(**{key: "Do"}).command


def test_the_command_with_underscores_comes_first() -> None:
    chat = parse(**{"chat_instruct_command": "a", "chat-instruct_command": "b"})
    assert "a" == chat.command


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"instruction_template": None},
        {"instruction_template": "None"},
        {"context_instruct": "S"},
        {"name1_instruct": "", "name2_instruct": "", "context_instruct": "", "turn_template": ""},
    ],
)
@pytest.mark.parametrize("mode", ["instruct", "chat-instruct"])
def test_without_a_template_the_models_own_is_meant(mode: str, fields: dict[str, Any]) -> None:
    chat = parse(mode=mode, **fields)
    assert (None, True, fields.get("context_instruct", "")) == (
        chat.template,
        chat.own_template,
        chat.system,
    )


def test_a_named_template_is_taken() -> None:
    chat = parse(mode="instruct", instruction_template="Alpaca")
    assert (load_template("Alpaca"), False) == (chat.template, chat.own_template)


def test_the_jobs_own_parts_are_put_upon_the_template() -> None:
    chat = parse(
        mode="instruct",
        instruction_template="Alpaca",
        name1_instruct="Q",
        name2_instruct="",
        context_instruct="Facts.\n",
        turn_template=r"<|user|>: <|user-message|>\n<|bot|>: <|bot-message|>\n",
    )
    turn = "<|user|>: <|user-message|>\n<|bot|>: <|bot-message|>\n"
    assert Template("Q", "", turn, "Facts.\n") == chat.template


def test_a_part_alone_is_put_upon_the_default_template() -> None:
    template = parse(mode="instruct", name1_instruct="Q").template
    assert template is not None
    assert ("Q", "### Response:") == (template.user, template.bot)


@pytest.mark.parametrize("mode", ["chat", "instruct"])
def test_an_unknown_template_is_refused_in_any_mode(mode: str) -> None:
    with pytest.raises(UnknownRoute, match=r"'NoSuch'"):
        parse(mode=mode, instruction_template="NoSuch")


def test_an_unknown_character_is_refused() -> None:
    with pytest.raises(UnknownRoute, match=r"'NoSuch'"):
        parse(character="NoSuch")


def test_a_job_without_user_input_is_refused() -> None:
    with pytest.raises(InvalidJob, match=r"^user_input is missing"):
        parse_chat({}, lambda name: load_character(name, None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_input", None),
        ("user_input", 5),
        ("mode", "nope"),
        ("mode", ["chat"]),
        ("character", 5),
        ("name1", 5),
        ("name2", ["x"]),
        ("context", {}),
        ("greeting", False),
        ("your_name", 1),
        ("instruction_template", 5),
        ("name1_instruct", 0),
        ("context_instruct", []),
        ("turn_template", 5),
        ("turn_template", "<|bot|><|user-message|><|bot-message|>"),
        ("turn_template", "<|user-message|><|bot|>"),
        ("chat_instruct_command", 5),
        ("regenerate", "maybe"),
        ("_continue", 2),
    ],
)
def test_a_field_that_cannot_work_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidJob, match=rf"^{field} is .*; it must be "):
        parse(**{field: value})


@pytest.mark.parametrize(
    "history",
    [
        5,
        [],
        {},
        {"internal": []},
        {"internal": [], "visible": None},
        {"internal": [["a"]], "visible": [["a"]]},
        {"internal": [["a", None]], "visible": [["a", "b"]]},
        {"internal": [["a", "b"]], "visible": []},
        {"internal": ["ab"], "visible": ["ab"]},
        {"data": [["a", "b"]]},
    ],
)
def test_a_history_that_is_no_two_lists_of_pairs_is_refused(history: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^history"):
        parse(history=history)


def test_the_older_form_of_a_history_is_taken() -> None:
    chat = parse(history={"data": [["a", "b"]], "data_visible": [["va", "vb"]]})
    assert ONE == start(chat)


def test_to_regenerate_and_continue_at_once_is_refused() -> None:
    with pytest.raises(InvalidJob, match=r"send one of them"):
        parse(history=ONE, regenerate=True, _continue=True)


def test_a_new_turn_is_added_and_shown_as_html() -> None:
    chat = parse(user_input="<b> & ", history=ONE, name1="Tom")
    assert {
        "internal": [["a", "b"], ["<b> & ", "{{user}} <user> <USER>, \\1\n"]],
        "visible": [["va", "vb"], ["&lt;b&gt; &amp; ", "Tom Tom Tom, \\1\n"]],
    } == update(chat, " {{user}} <user> <USER>, \\1\n")


def test_only_spaces_are_taken_off_the_replys_start() -> None:
    answer = update(parse(), "  \n x")
    assert {"internal": [["Q", "\n x"]], "visible": [["Q", "\n x"]]} == answer


def test_a_users_name_is_no_pattern() -> None:
    assert r"\1 & <x>" == parse(name1=r"\1 & <x>").name1
    answer = update(parse(name1=r"\1"), "<USER>")
    assert [["Q", r"\1"]] == answer["visible"]


@pytest.mark.parametrize("reply", ["", "  ", "\n"])
def test_an_empty_reply_leaves_an_empty_pair(reply: str) -> None:
    assert {"internal": [["", ""]], "visible": [["", ""]]} == update(parse(), reply)


def test_to_regenerate_asks_the_last_turn_again() -> None:
    chat = parse(history=ONE, regenerate=True)
    assert ("a", ()) == (chat.text, chat.history.internal)
    assert {"internal": [["a", "new"]], "visible": [["va", "new"]]} == update(chat, "new")


def test_to_continue_adds_to_the_last_reply() -> None:
    chat = parse(history=ONE, _continue=True)
    assert {"internal": [["a", "b <c>"]], "visible": [["va", "vb &lt;c&gt;"]]} == update(
        chat, " <c>"
    )


@pytest.mark.parametrize("what", ["regenerate", "_continue"])
@pytest.mark.parametrize("history", [None, GREETING])
def test_without_a_reply_there_is_nothing_to_redo(
    history: dict[str, Any] | None, what: str
) -> None:
    chat = parse(history=history, **{what: True})
    assert (True, history or {"internal": [], "visible": []}) == (chat.nothing_to_do, start(chat))


@pytest.mark.parametrize("what", ["regenerate", "_continue"])
def test_with_a_reply_there_is_something_to_redo(what: str) -> None:
    assert not parse(history=ONE, **{what: True}).nothing_to_do


@pytest.mark.parametrize("what", ["regenerate", "_continue", "mode"])
def test_the_callers_body_is_left_as_it_was(what: str) -> None:
    body = {"user_input": "Q", "history": copy.deepcopy(ONE), what: "chat" if what == "mode" else 1}
    before = copy.deepcopy(body)
    answer = update(parse_chat(body, lambda name: load_character(name, None)), "x")
    answer["internal"][0].append("changed")
    assert before == body
