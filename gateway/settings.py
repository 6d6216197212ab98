"""What a gateway is started with: the command line, and two variables of the environment."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from worker.errors import SettingsError

RUNPOD_URL = "https://api.runpod.ai/v2"
EMULATOR_URL = "http://127.0.0.1:8000/v2"
EMULATOR_ENDPOINT = "local"
_ENDPOINT = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """url: the endpoint's URL, its id included; wait: seconds that a job may be IN_QUEUE.

    origin: the one page that a browser may call from, "*" for any.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 5000
    stream_port: int = 5005
    wait: float = 300.0
    origin: str = "*"


def parse_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> GatewaySettings:
    """Read the command line and RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID.

    Without an endpoint it is the local emulator, which gets no key. Raises SettingsError.
    """
    options = _parser().parse_args(arguments)
    endpoint = options.endpoint or environ.get("RUNPOD_ENDPOINT_ID", "").strip()
    key = environ.get("RUNPOD_API_KEY", "").strip() or None
    url = options.url or (RUNPOD_URL if endpoint else EMULATOR_URL)
    is_local = _check_url(url)
    if not endpoint and not is_local:
        raise SettingsError("name the endpoint: set RUNPOD_ENDPOINT_ID or give --endpoint")
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise SettingsError("the endpoint's id has letters, digits, hyphens and underscores only")
    if key is None and not is_local:
        raise SettingsError("set RUNPOD_API_KEY to a key that may use the endpoint")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise SettingsError("RUNPOD_API_KEY holds characters that no key has")
    return GatewaySettings(
        url=f"{url.rstrip('/')}/{endpoint or EMULATOR_ENDPOINT}",
        api_key=key if endpoint else None,
        host=options.host,
        port=options.port,
        stream_port=options.stream_port,
        wait=options.wait,
        origin=options.origin.rstrip("/"),
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="text-generation-webui's API on this machine, answered by a RunPod endpoint.",
        epilog="RUNPOD_API_KEY holds the key. Without an endpoint it is the local emulator.",
    )
    add = parser.add_argument
    add("--endpoint", help="the endpoint's id (default: RUNPOD_ENDPOINT_ID)")
    add("--url", help=f"where endpoints are (default: {RUNPOD_URL})")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, default=5000, help="port of /api/v1/* and /v1/* (5000)")
    add("--stream-port", type=_port, default=5005, help="port of the websockets (5005)")
    add(
        "--wait", type=seconds, default=300.0, help="seconds that a job may wait for a worker (300)"
    )
    add("--origin", default="*", help="the one web page that may call from a browser (any)")
    return parser


def _check_url(url: str) -> bool:
    """Whether the URL is on this machine; a key never travels to another one unencrypted."""
    try:
        parts = urlsplit(url)
        is_local = is_loopback(parts.hostname or "")
    except ValueError:
        raise SettingsError("--url is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise SettingsError(f"--url must be a URL like {RUNPOD_URL}")
    if parts.scheme == "http" and not is_local:
        raise SettingsError("--url must begin with https:// unless it is on this machine")
    return is_local


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """Read the seconds that a job may wait; ArgumentTypeError for what can't be meant."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= 86_400:
        raise argparse.ArgumentTypeError("seconds from 0 to 86400")
    return number
