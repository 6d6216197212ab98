"""The requirements of the worker and of each engine have exact versions that resolve together.

The package index is asked for metadata only: uv resolves for another Python than the one that runs,
and downloads no package to do so.
"""

import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
COMPLETE = ["worker.txt", "classic.txt", "current.txt", "current-transformers.txt", "model.txt"]
FILES = [
    *(PROJECT / name for name in ("requirements.txt", "requirements-dev.txt")),
    *(PROJECT / "requirements" / name for name in COMPLETE),
]
# The Python of the image, and the oldest one that the worker itself may run on.
IMAGE_PYTHON, OLDEST_PYTHON = "3.11", "3.10"
PLATFORM = "x86_64-manylinux_2_28"
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!-]+)(?: --hash=\S+)*")


def pins(path: Path) -> dict[str, str]:
    """The packages that a file names, with those of the files that it refers to."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(path.parent / line[3:])
        elif line and not line.startswith("#"):
            match = _PIN.fullmatch(line)
            assert match, f"{path.name}: {line!r} is not NAME==VERSION"
            name = re.sub(r"[-_.]+", "-", match["name"]).lower()
            assert name not in found, f"{path.name}: {name} is there twice"
            found[name] = match["version"]
    return found


class Resolver:
    """uv, with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self._uv = importlib.import_module("uv").find_uv_bin()
        self._cache = cache

    def run(self, path: Path, python: str) -> tuple[str, str]:
        """What a file resolves to, and what is wrong with it: one of them is empty."""
        done = subprocess.run(
            [
                *(self._uv, "pip", "compile", "--quiet", "--no-config", "--cache-dir", self._cache),
                *("--no-header", "--no-annotate", "--only-binary", ":all:"),
                *("--python-version", python, "--python-platform", PLATFORM, path),
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return (done.stdout, "") if done.returncode == 0 else ("", done.stderr.strip())

    def resolve(self, path: Path, python: str) -> dict[str, str]:
        """The packages, by name."""
        output, wrong = self.run(path, python)
        assert not wrong, wrong
        return dict(line.split("==") for line in output.splitlines() if not line.startswith("-"))


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resolver]:
    """A resolver that reaches the index; without one there is nothing to test."""
    folder = tmp_path_factory.mktemp("uv")
    (folder / "probe.txt").write_text("idna==3.10\n")
    resolver = Resolver(folder / "cache")
    _, wrong = resolver.run(folder / "probe.txt", IMAGE_PYTHON)
    if wrong:
        pytest.skip(f"the package index does not answer: {wrong.splitlines()[-1]}")
    yield resolver
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert kept < 200e6, f"resolving took {kept / 1e6:.0f} MB: the index serves no metadata"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_version_is_exact(path: Path) -> None:
    assert pins(path)


@pytest.mark.parametrize("name", COMPLETE)
def test_an_environment_of_an_image_has_no_package_but_those_that_its_file_names(
    resolver: Resolver, name: str
) -> None:
    path = PROJECT / "requirements" / name

    assert pins(path) == resolver.resolve(path, IMAGE_PYTHON)


@pytest.mark.parametrize("python", [OLDEST_PYTHON, IMAGE_PYTHON])
def test_the_worker_and_the_tools_of_development_resolve_together(
    resolver: Resolver, tmp_path: Path, python: str
) -> None:
    both = tmp_path / "both.txt"
    names = ("requirements.txt", "requirements-dev.txt")
    both.write_text("".join(f"-r {PROJECT / name}\n" for name in names))

    assert pins(both).items() <= resolver.resolve(both, python).items()


def test_an_image_s_worker_has_the_versions_of_requirements_txt() -> None:
    complete = pins(PROJECT / "requirements/worker.txt")

    assert pins(PROJECT / "requirements.txt").items() <= complete.items()


def test_versions_that_contradict_each_other_are_found(resolver: Resolver, tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("transformers==4.35.2\ntokenizers==0.13.0\n")

    assert "No solution found" in resolver.run(path, IMAGE_PYTHON)[1]


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("requirements.txt", {"runpod", "aiohttp"}),
        ("requirements/classic.txt", {"torch", "transformers", "auto-gptq", "requests", "gradio"}),
        ("requirements/current-transformers.txt", {"torch", "transformers", "fastapi", "requests"}),
    ],
)
def test_what_an_environment_is_for_is_in_its_file(name: str, packages: set[str]) -> None:
    assert packages <= set(pins(PROJECT / name))


def test_the_worker_s_environment_has_no_torch() -> None:
    """The SDK would import it and touch the GPU at every start."""
    assert "torch" not in pins(PROJECT / "requirements/worker.txt")
