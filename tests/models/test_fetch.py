"""Models are found, or downloaded whole, from a hub that does its worst."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.models.conftest import BLOCK, LARGE, LARGE_FILE, MODEL, Machine
from tests.models.hub_server import COMMIT, TOKEN, FakeHub, Fault
from tests.models.times import LOCK, QUICK
from tests.models.weights import gguf, safetensors
from worker.model_errors import ModelUnavailable
from worker.model_fetch import Limits
from worker.model_source import LocalPath, Name, Repository, Url

FILE = "tiny-Q4_K_M.gguf"


def url_of(hub: FakeHub, data: bytes = MODEL) -> Url:
    address = f"{hub.url}/org/tiny/resolve/main/{FILE}?signature=canary"
    return Url(address, sha256(data).hexdigest(), FILE)


def fails(machine: Machine, source: Repository | Url, **options: str) -> str:
    """The sentence that obtaining it ends with."""
    with pytest.raises(ModelUnavailable) as caught:
        machine.obtain(source, **options)  # type: ignore[arg-type]  # only the token is given
    return str(caught.value)


def test_a_repository_is_downloaded_to_the_volume(machine: Machine, tiny: Repository) -> None:
    path = machine.obtain(tiny)

    assert machine.repository / "snapshots" / COMMIT / FILE == path
    assert MODEL == path.read_bytes()


def test_only_the_one_quantisation_is_fetched(machine: Machine, tiny: Repository) -> None:
    machine.obtain(tiny)

    assert {"listing", FILE} == {path for _, path, _ in machine.hub.calls}


def test_a_second_start_asks_nobody(machine: Machine, tiny: Repository) -> None:
    first = machine.obtain(tiny)
    machine.hub.calls.clear()

    assert first == machine.obtain(tiny)
    assert [] == machine.hub.calls


def test_other_tools_find_and_verify_it(machine: Machine, tiny: Repository) -> None:
    """As docs/models.md says of `hf cache`."""
    from huggingface_hub import HfApi, scan_cache_dir  # noqa: PLC0415 - slow to import

    path = machine.obtain(tiny)
    folder = machine.repository.parent

    found = scan_cache_dir(folder)
    verified = HfApi(endpoint=machine.hub.url).verify_repo_checksums("org/tiny", cache_dir=folder)

    assert [] == found.warnings
    assert [path] == [f.file_path for r in found.repos for v in r.revisions for f in v.files]
    assert (1, []) == (verified.checked_count, verified.mismatches)


def test_another_quantisation_does_not_stand_in(machine: Machine, tiny: Repository) -> None:
    machine.obtain(replace(tiny, pattern="Q8_0"))

    assert FILE == machine.obtain(tiny).name


def test_a_projector_is_fetched_when_it_is_asked_for(machine: Machine, tiny: Repository) -> None:
    path = machine.obtain(replace(tiny, pattern="F16", projector=True))

    assert "mmproj-F16.gguf" == path.name


def test_without_a_volume_the_local_folder_is_used(machine: Machine, tiny: Repository) -> None:
    (machine.root / "volume").rmdir()

    assert machine.obtain(tiny).is_relative_to(machine.root / "local")


def test_the_token_is_sent_and_never_told(machine: Machine, tiny: Repository) -> None:
    machine.obtain(tiny)

    assert {f"Bearer {TOKEN}"} == set(machine.hub.tokens)
    assert TOKEN not in "".join(machine.lines)


def test_safetensors_come_without_duplicates(machine: Machine) -> None:
    machine.hub.repositories["org/big"] = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors(2000),
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"x",
    }

    path = machine.obtain(Repository("org/big"))

    assert ["config.json", "model.safetensors", "tokenizer.json"] == sorted(
        file.name for file in path.iterdir()
    )


def test_a_lora_comes_the_same_way(machine: Machine) -> None:
    machine.hub.repositories["org/lora"] = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": safetensors(),
        "adapter_model.bin": b"pickle",
    }

    path = machine.obtain(Repository("org/lora"))

    assert ["adapter_config.json", "adapter_model.safetensors"] == sorted(
        file.name for file in path.iterdir()
    )


def test_every_shard_of_a_split_comes(machine: Machine) -> None:
    shards = {f"q8/big-Q8_0-0000{n}-of-00002.gguf": gguf(300 + n) for n in (1, 2)}
    machine.hub.repositories["org/split"] = dict(shards)

    path = machine.obtain(Repository("org/split", pattern="Q8_0"))

    assert "big-Q8_0-00001-of-00002.gguf" == path.name
    assert sorted(shards.values()) == sorted(part.read_bytes() for part in path.parent.iterdir())


def test_a_split_with_a_missing_shard_is_not_downloaded(machine: Machine) -> None:
    machine.hub.repositories["org/split"] = {"big-00001-of-00003.gguf": gguf()}

    text = fails(machine, Repository("org/split"))

    assert "the split model big-00001-of-00003.gguf is not complete: 1 of 3 parts are there" == text


def test_a_shard_that_vanished_is_fetched_again(machine: Machine) -> None:
    names = [f"big-0000{n}-of-00002.gguf" for n in (1, 2)]
    machine.hub.repositories["org/split"] = {name: gguf() for name in names}
    path = machine.obtain(Repository("org/split"))
    path.with_name(names[1]).unlink()
    machine.hub.calls.clear()

    assert path == machine.obtain(Repository("org/split"))
    assert [] == machine.hub.gets(names[0])
    assert [""] == machine.hub.gets(names[1])


def test_a_tokenizer_that_vanished_is_fetched_again(machine: Machine) -> None:
    machine.hub.repositories["org/big"] = {
        "model.safetensors": safetensors(2000),
        "tokenizer.json": b"{}",
    }
    path = machine.obtain(Repository("org/big"))
    (path / "tokenizer.json").unlink()

    assert path == machine.obtain(Repository("org/big"))
    assert (path / "tokenizer.json").exists()


def test_a_dropped_connection_is_resumed(machine: Machine, large: Repository) -> None:
    machine.hub.faults[LARGE_FILE].extend(Fault("drop", after) for after in (0, BLOCK + 1, 5))

    assert LARGE == machine.obtain(large).read_bytes()
    rest = f"bytes={BLOCK}-"
    assert ["", "", rest, rest] == machine.hub.gets(LARGE_FILE)
    text = f"the download of {LARGE_FILE} broke off: the connection broke; going on in 0.01 s"
    assert text in machine.lines


def test_a_connection_that_is_reset_is_tried_again(machine: Machine, large: Repository) -> None:
    machine.hub.faults[LARGE_FILE].append(Fault("reset", BLOCK + 1))

    assert LARGE == machine.obtain(large).read_bytes()


def test_attempts_without_progress_are_bounded(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault("drop", 0)

    assert f"the download of {FILE} failed" in fails(machine, tiny)
    assert QUICK.attempts == len(machine.hub.gets(FILE))


def test_a_server_without_ranges_is_started_again(machine: Machine, large: Repository) -> None:
    machine.hub.faults[LARGE_FILE].extend([Fault("drop", BLOCK + 1), Fault("no ranges")])

    assert LARGE == machine.obtain(large).read_bytes()


def test_a_stall_is_ended_and_resumed(machine: Machine, tiny: Repository) -> None:
    machine.hub.faults[FILE].append(Fault("stall", 5000))

    assert MODEL == machine.obtain(tiny).read_bytes()


def test_an_endless_stall_ends_with_a_sentence(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault("stall", 0)

    text = f"the download of {FILE} failed: no bytes came for too long; try again later"
    assert text == fails(machine, tiny)


def test_corrupt_bytes_never_get_the_name(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault("corrupt")

    text = f"the file {FILE} is damaged: its checksum is wrong; it was discarded"
    assert text == fails(machine, tiny)
    assert [] == list(machine.root.rglob("*.gguf*"))


def test_a_spoilt_part_is_replaced(machine: Machine, tiny: Repository) -> None:
    part = machine.repository / "snapshots" / COMMIT / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)

    assert MODEL == machine.obtain(tiny).read_bytes()


def test_a_part_that_is_too_long_is_replaced(machine: Machine, tiny: Repository) -> None:
    part = machine.repository / "snapshots" / COMMIT / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(MODEL) + 1))

    assert MODEL == machine.obtain(tiny).read_bytes()


def test_a_truncated_file_is_not_taken(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault("truncate", 5000)

    text = f"the download of {FILE} failed: the server sent only 5000 bytes of the file"
    assert text in fails(machine, tiny)
    assert [] == list(machine.root.rglob("*.gguf"))


def test_a_small_file_is_checked_by_git_s_digest(machine: Machine) -> None:
    machine.hub.repositories["org/big"] = {
        "config.json": b"{}",
        "model.safetensors": safetensors(2000),
    }
    machine.hub.always["config.json"] = Fault("corrupt")

    assert "config.json is damaged" in fails(machine, Repository("org/big"))


GATED = {"X-Error-Code": "GatedRepo"}
REFUSALS: list[tuple[Fault, str, str]] = [
    (Fault(status=401), TOKEN, "Hugging Face does not accept HF_TOKEN; make a new token"),
    (
        Fault(status=401, headers={"X-Error-Code": "RepoNotFound"}),
        "",
        "there is no repository org/tiny, or it is private and HF_TOKEN is not set",
    ),
    (
        Fault(status=404, headers={"X-Error-Code": "RepoNotFound"}),
        TOKEN,
        "there is no repository org/tiny, or it is private and HF_TOKEN may not read it",
    ),
    (
        Fault(status=401, headers=GATED),
        "",
        "the repository org/tiny is gated; accept its terms and set HF_TOKEN",
    ),
    (
        Fault(status=403, headers=GATED),
        TOKEN,
        "the repository org/tiny is gated; accept its terms with the account of HF_TOKEN",
    ),
    (
        Fault(status=403),
        TOKEN,
        "Hugging Face refuses org/tiny (status 403); check what HF_TOKEN may read",
    ),
    (
        Fault(status=429),
        TOKEN,
        "Hugging Face limits the rate of requests; try again later, or set HF_TOKEN",
    ),
    (
        Fault(status=429, headers={"Retry-After": "900"}),
        TOKEN,
        "Hugging Face limits the rate of requests; try again in 900 s, or set HF_TOKEN",
    ),
    (
        Fault(status=500),
        TOKEN,
        "Hugging Face can't serve org/tiny now (status 500); try again later",
    ),
]


@pytest.mark.parametrize("where", ["listing", FILE])
@pytest.mark.parametrize(("fault", "token", "text"), REFUSALS)
def test_a_refusal_is_one_clear_sentence(
    machine: Machine, where: str, fault: Fault, token: str, text: str
) -> None:
    machine.hub.always[where] = fault

    assert text == fails(machine, Repository("org/tiny"), token=token)


@pytest.mark.parametrize("where", ["listing", FILE])
def test_passing_refusals_are_tried_again(machine: Machine, tiny: Repository, where: str) -> None:
    machine.hub.faults[where].extend([Fault(status=503), Fault(status=429)])

    assert MODEL == machine.obtain(tiny).read_bytes()


def test_retry_after_is_honoured(machine: Machine, tiny: Repository) -> None:
    machine.hub.faults["listing"].append(Fault(status=429, headers={"Retry-After": "1"}))
    patience = replace(QUICK, longest_pause=2)
    before = time.monotonic()

    machine.obtain(tiny, limits=Limits(patience=patience, lock=LOCK))

    assert time.monotonic() - before >= 1


def test_an_unknown_repository_is_told(machine: Machine) -> None:
    assert "there is no repository org/none" in fails(machine, Repository("org/none"))


def test_an_unknown_revision_is_told(machine: Machine, tiny: Repository) -> None:
    text = fails(machine, replace(tiny, revision="v9"))

    assert "the repository org/tiny has no revision 'v9'" == text


def test_a_pattern_that_fits_nothing_lists_what_there_is(
    machine: Machine, tiny: Repository
) -> None:
    text = fails(machine, replace(tiny, pattern="Q2_K"))

    assert (
        "the repository has no model that matches 'Q2_K'; "
        "there is: tiny-Q4_K_M.gguf, tiny-Q8_0.gguf" == text
    )


@pytest.mark.parametrize("kind", ["stall", "nonsense"])
def test_a_listing_that_does_not_come_is_told(
    machine: Machine, tiny: Repository, kind: str
) -> None:
    machine.hub.always["listing"] = Fault(kind)

    assert "asking Hugging Face for the model's files failed" in fails(machine, tiny)


def test_no_network_is_told(machine: Machine, tiny: Repository) -> None:
    machine.hub.url = "http://127.0.0.1:9"

    assert (
        "asking Hugging Face for the model's files failed: the server can't be reached, there "
        "may be no network; try again later" == fails(machine, tiny)
    )


@pytest.mark.parametrize("token", ["hf_can\nary", "hf_canä", "hf can"])
def test_a_token_that_can_t_be_one_is_told(machine: Machine, tiny: Repository, token: str) -> None:
    text = "HF_TOKEN has a character that no token has; set it anew"
    assert text == fails(machine, tiny, token=token)


@pytest.mark.parametrize("url", ["http://[", "ftp://host", "nonsense"])
def test_an_endpoint_that_is_no_address_is_told(
    machine: Machine, tiny: Repository, url: str
) -> None:
    machine.hub.url = url

    assert "asking Hugging Face for the model's files failed: " in fails(machine, tiny)


def test_offline_nothing_is_asked(machine: Machine, tiny: Repository) -> None:
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE forbids to download it"):
        machine.obtain(tiny, offline=True)

    assert [] == machine.hub.calls


def test_too_little_disk_is_said_before_the_download(machine: Machine, tiny: Repository) -> None:
    limits = Limits(patience=QUICK, lock=LOCK, free=lambda _folder: 20_000)

    with pytest.raises(ModelUnavailable) as caught:
        machine.obtain(tiny, limits=limits)

    assert (
        f"the model does not fit on the disk: it needs {len(MODEL) / 1000:.1f} kB more and 20.0 kB "
        "are free; use a larger disk or volume" == str(caught.value)
    )
    assert [] == machine.hub.gets(FILE)


def test_what_is_there_already_needs_no_room(machine: Machine, large: Repository) -> None:
    machine.hub.faults[LARGE_FILE].extend([Fault("drop", BLOCK + 1), *[Fault("drop", 0)] * 3])
    fails(machine, large)
    limits = Limits(patience=QUICK, lock=LOCK, free=lambda _folder: len(LARGE) - BLOCK)

    assert LARGE == machine.obtain(large, limits=limits).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_is_told(machine: Machine, tiny: Repository) -> None:
    part = machine.repository / "snapshots" / COMMIT / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")

    text = f"the disk is full: the file {FILE} can't be written; use a larger disk or volume"
    assert text == fails(machine, tiny)


def test_a_url_is_downloaded_and_found_again(machine: Machine, hub: FakeHub) -> None:
    path = machine.obtain(url_of(hub))
    hub.calls.clear()

    assert MODEL == path.read_bytes()
    assert path == machine.obtain(url_of(hub))
    assert [] == hub.calls


def test_a_url_is_resumed(machine: Machine, hub: FakeHub) -> None:
    hub.faults[LARGE_FILE].append(Fault("drop", BLOCK + 1))
    address = f"{hub.url}/org/large/resolve/main/{LARGE_FILE}"
    url = Url(address, sha256(LARGE).hexdigest(), LARGE_FILE)

    assert LARGE == machine.obtain(url).read_bytes()
    assert ["", f"bytes={BLOCK}-"] == hub.gets(LARGE_FILE)


def test_a_url_with_other_bytes_is_not_taken(machine: Machine, hub: FakeHub) -> None:
    assert "its checksum is wrong" in fails(machine, url_of(hub, b"other"))
    assert [] == machine.parts()


def test_a_url_never_gets_the_token(machine: Machine, hub: FakeHub) -> None:
    machine.obtain(url_of(hub))

    assert {""} == set(hub.tokens)
    assert "canary" not in "".join(machine.lines)


def test_a_url_that_is_refused_is_told(machine: Machine, hub: FakeHub) -> None:
    hub.always[FILE] = Fault(status=403)

    assert f"the server refused {FILE} with status 403; check the URL" == fails(
        machine, url_of(hub)
    )


def test_a_url_of_unknown_size_is_refused(machine: Machine, hub: FakeHub) -> None:
    hub.always[FILE] = Fault("no size")

    assert "does not say how large" in fails(machine, url_of(hub))


def test_a_url_that_does_not_fit_is_not_started(machine: Machine, hub: FakeHub) -> None:
    with pytest.raises(ModelUnavailable, match="does not fit on the disk"):
        machine.obtain(
            url_of(hub), limits=Limits(patience=QUICK, lock=LOCK, free=lambda _folder: 10)
        )

    assert [0] == [part.stat().st_size for part in machine.parts()]


def test_a_redirect_to_another_host_does_not_get_the_token(
    machine: Machine, tiny: Repository
) -> None:
    other = machine.hub.url.replace("127.0.0.1", "localhost")
    target = f"{other}/org/tiny/resolve/main/moved.gguf"
    machine.hub.repositories["org/tiny"]["moved.gguf"] = MODEL
    tiny = replace(tiny, pattern="Q4_K_M")
    machine.hub.always[FILE] = Fault(status=302, headers={"Location": target})

    machine.obtain(tiny)

    assert ["", f"Bearer {TOKEN}"] == machine.hub.tokens[:-3:-1]


def test_progress_is_told(machine: Machine, tiny: Repository) -> None:
    machine.obtain(tiny, limits=Limits(patience=QUICK, lock=LOCK, line_every=0))

    assert f"downloading org/tiny: 1 files, {len(MODEL) / 1000:.1f} kB" in machine.lines
    last = machine.lines[-1]
    assert last.startswith(f"downloading {FILE}: ")
    assert last.endswith("/s, 0 bytes left, about 0 s")


@pytest.mark.parametrize(
    ("where", "kind"), [(FILE, "drop"), (FILE, "trickle"), ("listing", "trickle")]
)
def test_the_whole_download_has_a_deadline(
    machine: Machine, tiny: Repository, where: str, kind: str
) -> None:
    machine.hub.always[where] = Fault(kind, 100)
    limits = Limits(patience=replace(QUICK, total=0.3, pause=0.1, attempts=99), lock=LOCK)

    with pytest.raises(ModelUnavailable) as caught:
        machine.obtain(tiny, limits=limits)

    assert (
        "the model did not arrive within MODEL_DOWNLOAD_TIMEOUT (0.3 s); a new start goes on from "
        "there" == str(caught.value)
    )


def test_a_server_that_sends_too_much_is_cut_off(machine: Machine, tiny: Repository) -> None:
    machine.hub.always[FILE] = Fault("too much")

    assert "the server sends more than" in fails(machine, tiny)


def test_a_download_can_be_cancelled(machine: Machine, tiny: Repository) -> None:
    cancel = threading.Event()
    machine.hub.always[FILE] = Fault("stall", 5000)

    def cancel_when_stalled() -> None:
        assert machine.hub.stalled.wait(5)
        cancel.set()

    thread = threading.Thread(target=cancel_when_stalled)
    thread.start()
    with pytest.raises(ModelUnavailable, match="the download was cancelled"):
        machine.obtain(tiny, cancel=cancel)
    thread.join(5)


def add_cached(machine: Machine, *, refs: bool = True) -> Path:
    """Put the model where the platform caches it."""
    kept = machine.root / "volume" / "huggingface-cache" / "hub" / "models--org--tiny"
    snapshot = kept / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True)
    (kept / "blobs").mkdir()
    (kept / "blobs" / "1").write_bytes(MODEL)
    (snapshot / FILE).symlink_to("../../blobs/1")
    if refs:
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text("b" * 40)
    return snapshot / FILE


@pytest.mark.parametrize("refs", [True, False])
def test_the_platform_s_cached_model_is_used(
    machine: Machine, tiny: Repository, refs: bool
) -> None:
    path = add_cached(machine, refs=refs)

    assert path == machine.obtain(tiny, offline=True)


def test_a_cached_model_of_another_revision_is_not_used(machine: Machine, tiny: Repository) -> None:
    add_cached(machine)

    assert COMMIT in str(machine.obtain(replace(tiny, revision="v1")))


def cut_short(path: Path) -> None:
    path.resolve().write_bytes(MODEL[:-1])


def dead_link(path: Path) -> None:
    path.resolve().unlink()


@pytest.mark.parametrize("damage", [cut_short, dead_link])
def test_an_incomplete_cached_model_is_passed_over(
    machine: Machine, tiny: Repository, damage: Callable[[Path], None]
) -> None:
    damage(add_cached(machine))

    assert machine.obtain(tiny).is_relative_to(machine.repository)
    assert any(line.startswith("the model in the cached models can't") for line in machine.lines)


def test_the_image_comes_before_the_volume(machine: Machine, tiny: Repository) -> None:
    add_cached(machine)
    baked = machine.root / "baked" / "org" / "tiny" / FILE
    baked.parent.mkdir(parents=True)
    baked.write_bytes(MODEL)

    assert baked == machine.obtain(tiny)


def test_a_damaged_file_on_the_volume_is_fetched_again(machine: Machine, tiny: Repository) -> None:
    path = machine.obtain(tiny)
    path.write_bytes(bytes(len(MODEL)))

    assert MODEL == machine.obtain(tiny).read_bytes()


def test_a_name_is_found_in_the_image(machine: Machine) -> None:
    (machine.root / "baked").mkdir()
    (machine.root / "baked" / "a.gguf").write_bytes(MODEL)

    assert machine.root / "baked" / "a.gguf" == machine.obtain(Name("a"))


def test_a_name_of_a_split_is_its_first_part(machine: Machine) -> None:
    (machine.root / "baked").mkdir()
    for n in (1, 2):
        (machine.root / "baked" / f"a-0000{n}-of-00002.gguf").write_bytes(MODEL)

    assert "a-00001-of-00002.gguf" == machine.obtain(Name("a")).name


def test_a_name_that_there_is_not_is_told(machine: Machine) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        machine.obtain(Name("a"))

    assert "there is no model a in the image or the cached models or the volume" == str(
        caught.value
    )


def test_a_path_is_taken_when_it_is_whole(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL)

    assert tmp_path / "a.gguf" == machine.obtain(LocalPath(tmp_path / "a.gguf"))


def test_half_a_copy_on_the_volume_is_told(machine: Machine) -> None:
    path = machine.root / "volume" / "a.gguf"
    path.write_bytes(MODEL[:-1])

    with pytest.raises(ModelUnavailable, match=r"^the model file a.gguf is cut short"):
        machine.obtain(LocalPath(path))
