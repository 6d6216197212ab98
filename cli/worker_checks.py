"""Checks of what a worker is started with: settings, model, ports, volume, keys, platform."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from cli.check import Check, bad, note, ok
from worker.errors import EngineStartFailed, SettingsError
from worker.model_source import Repository, Url, read
from worker.models import catalog, check_model
from worker.settings import Settings

# Where the platform mounts a network volume:
# https://docs.runpod.io/serverless/storage/overview
_VOLUME = Path("/runpod-volume")
_EMULATOR_PORT = 8000
_KEYS = {
    "RUNPOD_API_KEY": re.compile(r"rpa_[A-Za-z0-9]{20,}|[A-Z0-9]{30,}"),
    "HF_TOKEN": re.compile(r"hf_[A-Za-z0-9]{20,}"),
}
# What a worker of the platform can't do without; runpod-python 1.12.0, rp_job.py and rp_ping.py.
_PLATFORM = ("RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_WEBHOOK_POST_OUTPUT", "RUNPOD_AI_API_KEY")
_SDK_CONFIG = Path("~/.runpod/config.toml")


def all_checks(environ: Mapping[str, str]) -> list[Check]:
    """Every check of the settings and of what they point to."""
    checks = [volume(_VOLUME), *keys(environ), platform_variables(environ)]
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        lines = str(error).splitlines()
        return [bad("settings", line, "see docs/configuration.md") for line in lines] + checks
    return [
        ok("settings", f"ENGINE={settings.engine}, {settings.engine_slots} slots"),
        model(settings),
        port("engine port", settings.engine_port, "another program has it: set ENGINE_PORT"),
        port("emulator port", _EMULATOR_PORT, "give the emulator another one with --port"),
        *checks,
    ]


def model(settings: Settings) -> Check:
    """The model file of the embedded engine, or the checkout of text-generation-webui."""
    if settings.engine != "embedded" and (settings.webui_dir or settings.engine != "auto"):
        return _checkout(settings.webui_dir)
    try:
        source = read(settings.model, "MODEL")
        if isinstance(source, (Repository, Url)):
            name = source.id if isinstance(source, Repository) else source.name
            return note("model", f"{name} is had at the start, if it is on no disk yet")
        models = catalog(settings)
        path = models.resolve(models.default)
        check_model(path)
    except (SettingsError, EngineStartFailed) as error:
        advice = "set MODEL to a GGUF file, or MODELS_DIR to a folder with one"
        return bad("model", str(error), advice)
    return ok("model", f"{models.default}, {path.stat().st_size / 1e9:.2f} GB")


def _checkout(folder: Path | None) -> Check:
    advice = "set WEBUI_DIR to a checkout of text-generation-webui"
    if folder is None:
        return bad("engine", "WEBUI_DIR is not set", advice)
    if not (folder / "server.py").is_file():
        return bad("engine", "WEBUI_DIR has no server.py", advice)
    return ok("engine", f"text-generation-webui in {folder}")


def port(name: str, number: int, advice: str) -> Check:
    """A port on 127.0.0.1 that nobody listens on; a worker or emulator that runs has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            return note(name, f"{number} can't be had: {error.strerror}", advice)
    return ok(name, f"{number} is free")


def volume(path: Path) -> Check:
    """The network volume, if there is one."""
    if not path.is_dir():
        return note("volume", f"none at {path}")
    usage = os.statvfs(path)
    found = f"{path}, {usage.f_bavail * usage.f_frsize / 1e9:.1f} GB free"
    if not os.access(path, os.W_OK):
        return note("volume", f"{found}, read-only", "downloads can't be kept there")
    return ok("volume", found)


def keys(environ: Mapping[str, str]) -> list[Check]:
    """The shape of the keys; their values are never shown."""
    checks = []
    for name, shape in _KEYS.items():
        value = environ.get(name, "")
        if not value:
            checks.append(note(name, "not set"))
        elif shape.fullmatch(value):
            checks.append(ok(name, "set, and it has the shape of a key"))
        else:
            advice = "copy it again, without quotes, spaces or line ends"
            checks.append(note(name, "set, but it has not the shape of a key", advice))
    return checks


def platform_variables(environ: Mapping[str, str], config: Path = _SDK_CONFIG) -> Check:
    """The variables that the platform sets, all of them or none."""
    there = [name for name in _PLATFORM if environ.get(name)]
    missing = [name for name in _PLATFORM if name not in there]
    if not there:
        return note("RunPod", "not on the platform: ./start.sh runs one job and ends")
    if missing:
        advice = "the platform sets them; do not set single ones by hand"
        return bad("RunPod", f"missing: {', '.join(missing)}", advice)
    if config.expanduser().is_file():
        advice = "its key is used in place of RUNPOD_AI_API_KEY; move the file away"
        return note("RunPod", f"{config} is there", advice)
    return ok("RunPod", f"a worker of the platform, {environ.get('RUNPOD_POD_ID', 'without id')}")
