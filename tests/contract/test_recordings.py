"""Recorded jobs of text-generation-webui's blocking API, read and answered the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.contract.characters import load_character
from worker.contract.chat import Chat, parse_chat, update
from worker.contract.chat_prompt import stopping_strings, trim_stop
from worker.contract.parameters import Parameters, parse_parameters, prompt_of
from worker.errors import InvalidJob, UnknownRoute

HERE = Path(__file__).parent
# Failed for a reason that is not in the job: no model, or that version's own fault.
NOT_THE_JOBS_FAULT = (
    "nomodel_post_chat",
    "post_chat_instruct",
    "post_chat_instruct_custom_system_message",
    "post_chat_instruct_template",
)
STRICTER = ("post_generate_prompt_list", "post_generate_temperature_negative")


def recordings(path: str, *, answered: bool) -> list[Any]:
    """Recorded POSTs to this path that were answered, or that got an empty body."""
    found = []
    for file in sorted(HERE.glob("legacy*/*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        request, response = record.get("request"), record.get("response", {})
        if not request or request["path"] != path or response.get("status") != 200:
            continue
        known = file.stem not in (*NOT_THE_JOBS_FAULT, *STRICTER) or file.parent.name != "legacy"
        if known and isinstance(request["body"], dict) and bool(response["body"]) == answered:
            name = f"{file.parent.name}-{file.stem}"
            found.append(pytest.param(request["body"], response["body"], id=name))
    assert found
    return found


def read_generate(body: dict[str, Any]) -> tuple[str, Parameters]:
    return prompt_of(body), parse_parameters(body)


def parse(body: dict[str, Any]) -> Chat:
    return parse_chat(body, lambda name: load_character(name, None))


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/chat", answered=True))
def test_the_recorded_reply_gives_the_recorded_history(
    body: dict[str, Any], answer: dict[str, Any]
) -> None:
    chat = parse(body)
    history = answer["results"][0]["history"]
    reply = history["internal"][-1][1]
    if chat.continues:
        reply = reply[len(chat.history.internal[-1][1]) :]
    assert history == update(chat, reply)


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/chat", answered=True))
def test_the_recorded_reply_has_no_stopping_string(
    body: dict[str, Any], answer: dict[str, Any]
) -> None:
    reply = answer["results"][0]["history"]["internal"][-1][1]
    stops = stopping_strings(parse(body), parse_parameters(body).stopping_strings)
    assert not trim_stop(reply, stops)[1]


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/chat", answered=False))
def test_a_chat_that_got_an_empty_body_is_refused(body: dict[str, Any], answer: str) -> None:
    with pytest.raises((InvalidJob, UnknownRoute)):
        parse(body)
    assert "" == answer


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/generate", answered=True))
def test_a_generation_that_was_answered_is_accepted(
    body: dict[str, Any], answer: dict[str, Any]
) -> None:
    prompt, parameters = read_generate(body)
    expected = (body["prompt"], body.get("max_new_tokens", 200))
    assert expected == (prompt, parameters.max_new_tokens)
    assert "results" in answer


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/generate", answered=False))
def test_a_generation_that_got_an_empty_body_is_refused(body: dict[str, Any], answer: str) -> None:
    with pytest.raises((InvalidJob, UnknownRoute)):
        read_generate(body)
    assert "" == answer


@pytest.mark.parametrize(("body", "answer"), recordings("/api/v1/token-count", answered=False))
def test_a_count_that_got_an_empty_body_is_refused(body: dict[str, Any], answer: str) -> None:
    with pytest.raises(InvalidJob):
        prompt_of(body)
    assert "" == answer
