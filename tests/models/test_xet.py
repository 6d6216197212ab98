"""Files in Xet storage: the real client, with a storage in a folder."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.models.conftest import LARGE, LARGE_FILE, Machine
from tests.models.hub_server import COMMIT, Fault
from tests.models.test_processes import LIMIT, worker
from worker.model_source import Repository

PART = 7_000_000


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A storage with the large model, and the model's name in it."""
    import hf_xet  # noqa: PLC0415 - not every test session needs it

    folder = tmp_path_factory.mktemp("xet")
    (folder / "model").write_bytes(LARGE)
    address = f"local://{folder / 'storage'}"
    with hf_xet.XetSession().new_upload_commit(endpoint=address) as commit:
        upload = commit.start_upload_file(str(folder / "model"))
    return address, upload.result().xet_info.hash


@pytest.fixture
def machine(machine: Machine, storage: tuple[str, str]) -> Machine:
    machine.hub.xet_storage, machine.hub.xet[LARGE_FILE] = storage
    return machine


@pytest.fixture
def silent() -> Iterator[str]:
    """A storage that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def part_of(machine: Machine) -> Path:
    return machine.root / f"volume/models/models--org--large/snapshots/{COMMIT}/{LARGE_FILE}.part"


def test_a_file_comes_from_the_storage(machine: Machine, large: Repository) -> None:
    assert LARGE == machine.obtain(large).read_bytes()
    assert [] == machine.hub.gets(LARGE_FILE)


def test_what_a_former_start_left_is_resumed(machine: Machine, large: Repository) -> None:
    part = part_of(machine)
    part.parent.mkdir(parents=True)
    part.write_bytes(LARGE[:PART])

    path = machine.obtain(large)

    assert sha256(LARGE).digest() == sha256(path.read_bytes()).digest()
    left = f"{(len(LARGE) - PART) / 1e6:.1f} MB, {PART / 1e6:.1f} MB are there already"
    assert f"downloading org/large: 1 files, {left}" in machine.lines


def test_a_part_that_is_spoilt_is_fetched_anew(machine: Machine, large: Repository) -> None:
    part = part_of(machine)
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(PART))

    assert LARGE == machine.obtain(large).read_bytes()


def test_without_the_storage_it_comes_over_http(
    machine: Machine, large: Repository, tmp_path: Path
) -> None:
    machine.hub.xet_storage = f"local://{tmp_path / 'empty'}"

    assert LARGE == machine.obtain(large).read_bytes()
    assert [""] == machine.hub.gets(LARGE_FILE)


def test_without_access_to_the_storage_it_comes_over_http(
    machine: Machine, large: Repository
) -> None:
    machine.hub.always["xet"] = Fault(status=403)

    assert LARGE == machine.obtain(large).read_bytes()
    assert [""] == machine.hub.gets(LARGE_FILE)


def test_a_storage_that_is_silent_is_given_up(
    machine: Machine, large: Repository, silent: str
) -> None:
    machine.hub.xet_storage = silent

    assert LARGE == machine.obtain(large).read_bytes()
    assert [""] == machine.hub.gets(LARGE_FILE)
    text = "broke off: no bytes came from the Xet storage for too long; going on in 0.01 s"
    assert f"the download of {LARGE_FILE} {text}" in machine.lines


def test_nothing_but_the_model_is_written_or_said(machine: Machine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with worker(machine, "org/large", HOME=str(home), HF_HOME=str(home)) as process:
        said, _ = process.communicate(timeout=LIMIT)

    assert [str(part_of(machine)).removesuffix(".part")] == said.splitlines()
    assert [] == [path for path in home.rglob("*") if path.is_file()]


def test_a_silent_storage_does_not_hold_up_the_end(
    machine: Machine, large: Repository, silent: str
) -> None:
    """SIGTERM, while the client's own threads wait."""
    machine.hub.xet_storage = silent
    with worker(machine, "org/large", stall=60.0) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("downloading")
        machine.hub.accessed.wait(10)
        process.send_signal(signal.SIGTERM)

        assert -signal.SIGTERM == process.wait(5)
