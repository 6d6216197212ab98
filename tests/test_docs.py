"""The documents say what the code does."""

import re
from pathlib import Path

from worker.contract import openai_textgen
from worker.contract.llama_cpp import UNSUPPORTED
from worker.contract.parameters import TABLE
from worker.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


def rows(document: str, pattern: str) -> dict[str, str]:
    """First column (in backquotes) of each table row that matches, and the rest of the row."""
    text = (DOCS / document).read_text("utf-8")
    return {match[1]: match[2] for match in re.finditer(pattern, text, re.MULTILINE)}


def test_every_setting_is_documented_and_nothing_else() -> None:
    documented = rows("configuration.md", r"^\| `([A-Z_]+)` \| (.*) \|$")

    assert sorted(Settings.variables()) == sorted(documented)


def test_every_setting_is_documented_with_its_default() -> None:
    documented = rows("configuration.md", r"^\| `([A-Z_]+)` \| `?([^|`]+)`? \|")
    switches = {True: "on", False: "off"}
    defaults = {
        variable: switches[default] if isinstance(default, bool) else _plain(default)
        for variable, default in Settings.variables().items()
        if default not in ("", None, ())
    }

    assert defaults == {variable: documented[variable].strip() for variable in defaults}


def _plain(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_parameter_is_documented_with_what_it_does_on_the_embedded_engine() -> None:
    documented = rows("jobs.md", r"^\| `([a-z_]+)` \| [^|]* \| `[^|]*` \| (.*) \|$")

    does = {
        name: f"no effect: {UNSUPPORTED[name]}" if name in UNSUPPORTED else "yes" for name in TABLE
    }
    assert does == documented


def test_the_parameters_that_todays_textgen_does_not_have_are_named() -> None:
    text = (DOCS / "jobs.md").read_text("utf-8").replace("\n", " ")
    named = re.search(r"with Transformers all work but (.+?)\.", text)

    assert named is not None
    assert sorted(openai_textgen.UNSUPPORTED) == sorted(re.findall(r"`(\w+)`", named[1]))
    llama_cpp = {*openai_textgen.UNSUPPORTED_LLAMA_CPP, "max_tokens_second"}
    assert set(UNSUPPORTED) == llama_cpp
