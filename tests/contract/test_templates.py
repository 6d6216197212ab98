from __future__ import annotations

import pytest

from worker.contract.templates import Template, load_template, template_names
from worker.errors import UnknownRoute


def test_there_are_the_56_templates() -> None:
    assert 56 == len(template_names())


def test_a_template_has_names_turns_and_context() -> None:
    expected = Template(
        user="user",
        bot="assistant",
        turn_template=(
            "<|im_start|><|user|>\n<|user-message|><|im_end|>\n"
            "<|im_start|><|bot|>\n<|bot-message|><|im_end|>\n"
        ),
        context="<|im_start|>system\n<|im_end|>\n",
    )
    assert expected == load_template("ChatML")


def test_a_template_without_context_starts_with_nothing() -> None:
    assert "" == load_template("Open Assistant").context


@pytest.mark.parametrize("name", template_names())
def test_every_template_has_a_turn(name: str) -> None:
    turn = load_template(name).turn_template
    places = [turn.find(mark) for mark in ("<|user-message|>", "<|bot|>", "<|bot-message|>")]
    assert (sorted(places), False) == (places, -1 in places)


def test_an_unknown_template_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownRoute, match=r"'vicuna-v1.1' does not exist.*Vicuna-v1.1"):
        load_template("vicuna-v1.1")
