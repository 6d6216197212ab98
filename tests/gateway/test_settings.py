"""The command line and the environment."""

from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings, parse_settings
from worker.errors import SettingsError

KEY = {"RUNPOD_API_KEY": "canary-key"}


def test_without_an_endpoint_it_is_the_local_emulator_which_gets_no_key() -> None:
    expected = GatewaySettings(url="http://127.0.0.1:8000/v2/local", api_key=None)
    assert expected == parse_settings([], KEY)


def test_an_endpoint_of_the_environment_is_runpods() -> None:
    settings = parse_settings([], {**KEY, "RUNPOD_ENDPOINT_ID": "abc123"})
    assert "https://api.runpod.ai/v2/abc123" == settings.url
    assert "canary-key" == settings.api_key


def test_the_command_line_is_stronger_than_the_environment() -> None:
    settings = parse_settings(["--endpoint", "xyz"], {**KEY, "RUNPOD_ENDPOINT_ID": "abc123"})
    assert "https://api.runpod.ai/v2/xyz" == settings.url


def test_the_key_is_not_shown() -> None:
    assert "canary" not in repr(parse_settings(["--endpoint", "xyz"], KEY))


@pytest.mark.parametrize(
    ("arguments", "environ", "part"),
    [
        (["--endpoint", "xyz"], {}, "RUNPOD_API_KEY"),
        (["--url", "https://api.runpod.ai/v2"], KEY, "--endpoint"),
        (["--endpoint", "x/../y"], KEY, "id"),
        (["--endpoint", "xyz", "--url", "http://example.com/v2"], KEY, "https://"),
        (["--endpoint", "xyz", "--url", "ftp://127.0.0.1/v2"], KEY, "--url"),
        (["--endpoint", "xyz"], {"RUNPOD_API_KEY": "a\nb"}, "characters"),
    ],
)
def test_what_can_not_work_is_refused(
    arguments: list[str], environ: dict[str, str], part: str
) -> None:
    with pytest.raises(SettingsError, match=part):
        parse_settings(arguments, environ)


@pytest.mark.parametrize("option", [["--port", "70000"], ["--wait", "nan"], ["--wait", "0"]])
def test_a_wrong_option_ends_the_program(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(option, {})
    assert option[0] in capsys.readouterr().err
