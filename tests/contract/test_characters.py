from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from worker.contract.characters import MAX_CHARACTER_BYTES, Character, load_character
from worker.errors import InvalidJob, UnknownRoute


@pytest.mark.parametrize("name", [None, "None", "Assistant"])
def test_the_default_character_is_the_assistant(name: str | None) -> None:
    character = load_character(name, None)
    assert ("AI", None, "How can I help you today?") == (
        character.name2,
        character.name1,
        character.greeting,
    )
    assert character.context.startswith("The following is a conversation with an AI Large Lang")
    assert character.context.endswith("outside the box.\n")


def test_the_example_character_is_shipped() -> None:
    assert "Mara" == load_character("Example", None).name2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"name": "Ada", "greeting": "Hi.", "context": " Terse. "},
            Character(None, "Ada", "Hi.", "Terse.\n"),
        ),
        ({"bot": "Ada", "user": "Tom"}, Character("Tom", "Ada", "", "")),
        ({"<|bot|>": "Ada", "<|user|>": "Tom"}, Character("Tom", "Ada", "", "")),
        ({"name": "", "bot": "Ada", "your_name": "Tom"}, Character("Tom", "Ada", "", "")),
        ({"name": 42}, Character(None, "42", "", "")),
        (
            {
                "char_name": "Ada",
                "char_greeting": "Hi.",
                "char_persona": "A robot.",
                "world_scenario": "A lab.",
                "example_dialogue": "\nYou: x\n",
            },
            Character(None, "Ada", "Hi.", "Ada's Persona: A robot.\nScenario: A lab.\nYou: x\n"),
        ),
        (
            {"char_name": "Ada", "char_persona": "", "world_scenario": "A lab."},
            Character(None, "Ada", "", "Scenario: A lab.\n"),
        ),
    ],
)
def test_a_file_may_have_the_fields_of_any_program(
    tmp_path: Path, content: dict[str, str], expected: Character
) -> None:
    (tmp_path / "X.json").write_text(json.dumps(content))
    assert expected == load_character("X", tmp_path)


@pytest.mark.parametrize("suffix", ["yml", "yaml"])
def test_a_file_may_be_yaml(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"v1.1 Ada.{suffix}").write_text("name: Ada\ncontext: |\n  é\n", encoding="utf-8")
    assert Character(None, "Ada", "", "é\n") == load_character("v1.1 Ada", tmp_path)


def test_the_folders_files_come_first(tmp_path: Path) -> None:
    (tmp_path / "Assistant.yaml").write_text("name: Mine")
    assert "Mine" == load_character(None, tmp_path).name2


def test_of_two_files_yml_comes_before_json(tmp_path: Path) -> None:
    (tmp_path / "X.json").write_text('{"name": "json"}')
    (tmp_path / "X.yml").write_text("name: yml")
    assert "yml" == load_character("X", tmp_path).name2


def test_a_missing_folder_leaves_the_shipped_characters(tmp_path: Path) -> None:
    assert "AI" == load_character(None, tmp_path / "none").name2


@pytest.mark.parametrize(
    "name",
    ["NoSuch", "", ".", "..", "../secret", "sub/x", "/etc/passwd", "a\0b", "\ud800", "x" * 5000],
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "characters"
    folder.mkdir()
    (tmp_path / "secret.yaml").write_text("name: Secret")
    (folder / "sub").mkdir()
    (folder / "sub" / "x.yaml").write_text("name: X")
    with pytest.raises(UnknownRoute, match=r"does not exist") as refused:
        load_character(name, folder)
    assert str(tmp_path) not in str(refused.value)


def test_an_unknown_character_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownRoute, match=r"'example' does not exist; near it are Example"):
        load_character("example", None)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("X.json", b"{"),
        ("X.json", b"[" * 200_000),
        ("X.json", b"[]"),
        ("X.json", b'{"name": ["Ada"]}'),
        ("X.yaml", b"a: [b"),
        ("X.yaml", b"just text"),
        ("X.yaml", b"name: \xff"),
        ("X.yaml", b"!!python/object/apply:os.getcwd []"),
        ("X.yaml", b"name: Ada\n" + b"#" * MAX_CHARACTER_BYTES),
    ],
)
def test_a_broken_file_is_told_without_its_path(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InvalidJob, match=r"^the file of character 'X' can't be used: ") as refused:
        load_character("X", tmp_path)
    assert str(tmp_path) not in str(refused.value)


def test_what_is_no_file_is_no_character(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "X.yaml")
    with pytest.raises(UnknownRoute):
        load_character("X", tmp_path)
