"""The documents agree with each other and with the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import exits
from cli.commands import COMMANDS
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
FILES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("examples/*.md")]
# What start.sh reads, clients' variables, and the variables of the workers that one comes from.
_OTHERS = {"WORKER_PYTHON", "RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID"}


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_link_to_a_file_or_a_heading_leads_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)

    assert [] == broken


def test_every_exit_code_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    codes = {value for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}

    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")

    for name in [*COMMANDS, "doctor"]:
        assert re.search(rf"^\| .*`{name}\b", text, re.MULTILINE), name


@pytest.mark.parametrize("name", ["troubleshooting.md", "migrating.md", "cli.md"])
def test_the_settings_that_are_advised_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text("utf-8")
    # Of a table that begins with what was before only the last column is about this worker.
    lines = [line.split(" | ")[-1] if line.startswith("| ") else line for line in text.splitlines()]
    words = re.findall(r"`([A-Z]+_[A-Z_]+|MODEL|ENGINE|LORA)\b", "\n".join(lines))
    statuses = {"IN_QUEUE", "IN_PROGRESS", "TIMED_OUT"}

    unknown = {word for word in words if not word.startswith("RUNPOD_")}
    assert set() == unknown - set(Settings.variables()) - _OTHERS - statuses
