from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.model_source import LocalPath, Name, Repository, Source, Url, parse, projector_of

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("/models/a.gguf", LocalPath(Path("/models/a.gguf"))),
        ("./org/a", LocalPath(Path.cwd() / "org" / "a")),
        ("models/a.gguf", LocalPath(Path.cwd() / "models" / "a.gguf")),
        ("~/a", LocalPath(Path.home() / "a")),
        ("llama-3", Name("llama-3")),
        ("llama-3.Q4_0.gguf", Name("llama-3.Q4_0.gguf")),
        ("org/name", Repository("org/name")),
        ("org/name:Q4_K_M", Repository("org/name", pattern="Q4_K_M")),
        ("org/name@v1", Repository("org/name", "v1")),
        ("org/name@refs/pr/1:q/a.gguf", Repository("org/name", "refs/pr/1", "q/a.gguf")),
        ("org/Name-7B-GGUF:*q5*", Repository("org/Name-7B-GGUF", pattern="*q5*")),
        (
            f"https://host:8443/d/a.gguf?key=1#sha256={DIGEST.upper()}",
            Url("https://host:8443/d/a.gguf?key=1", DIGEST, "a.gguf"),
        ),
    ],
)
def test_every_form_is_read(text: str, source: Source) -> None:
    assert source == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "org/name/more",
        "org/../name",
        "org/name:../a.gguf",
        "org/name@../x",
        "..",
        "a..b",
        "org/na me",
        "org/name;ls",
        "org/name:$(id)",
        "org/name\n",
        "org--x/name",
        "",
        "-rf",
    ],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^MODEL is .*; it must be a path, a name in"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"http://host/a.gguf#sha256={DIGEST}", "must be an https URL"),
        (f"file:///etc/passwd#sha256={DIGEST}", "must be an https URL"),
        (f"https://me:canary@host/a.gguf#sha256={DIGEST}", "without a user"),
        ("https://host/a.gguf", "must end in #sha256"),
        ("https://host/a.gguf#sha256=12", "must end in #sha256"),
        (f"https://host/#sha256={DIGEST}", "ends in a file's name"),
        (f"https://host/%2e%2e#sha256={DIGEST}", "ends in a file's name"),
        (f"https://host/a%2Fb#sha256={DIGEST}", "ends in a file's name"),
        (f"https://host:x/a#sha256={DIGEST}", "is not a URL"),
        (f"https://[/a#sha256={DIGEST}", "is not a URL"),
    ],
)
def test_a_wrong_url_is_refused_without_repeating_it(text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        parse(text)

    assert "canary" not in str(caught.value)


MODEL = Repository("org/name", "v1", "Q4_K_M")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("*", Repository("org/name", "v1", "*", projector=True)),
        ("F16", Repository("org/name", "v1", "F16", projector=True)),
        ("a/b:mmproj-F16.gguf", Repository("a/b", None, "mmproj-F16.gguf", projector=True)),
        ("/models/mmproj.gguf", LocalPath(Path("/models/mmproj.gguf"))),
    ],
)
def test_a_projector_is_a_pattern_of_the_model_s_repository_or_a_source(
    text: str, source: Source
) -> None:
    assert source == projector_of(MODEL, text)


def test_a_projector_s_pattern_needs_a_repository() -> None:
    with pytest.raises(SettingsError, match="without a repository it must be a path"):
        projector_of(Name("a"), "*")
