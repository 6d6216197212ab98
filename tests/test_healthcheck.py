"""The image's health check says whether the engine's port is open, in its exit code."""

import socket
import subprocess
import sys

from tests.ports import free_port


def _check(port: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker.healthcheck"],
        env={"ENGINE_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_an_open_port_is_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        checked = _check(server.getsockname()[1])

    assert (0, "") == (checked.returncode, checked.stderr)


def test_a_closed_port_is_not() -> None:
    checked = _check(free_port())

    assert (1, "") == (checked.returncode, checked.stdout)
    assert checked.stderr.startswith("the engine is not up: ")


def test_a_wrong_setting_is_not() -> None:
    checked = _check("no port")

    assert 1 == checked.returncode
    assert "ENGINE_PORT is 'no port'" in checked.stderr
