"""The GitHub workflow, as far as it can be run without GitHub."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / ".github" / "workflows" / "ci.yml"
JOBS: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))["jobs"]
TARGETS = JOBS["publish"]["strategy"]["matrix"]["target"]
# A docker that notes what it is asked, and the password it is given.
DOCKER = """#!/bin/sh
echo "$*" >>"$DOCKER_LOG"
case "$1" in login) cat >"$DOCKER_LOG.password" ;; esac
"""


def steps() -> list[dict[str, Any]]:
    """All steps of all jobs."""
    return [step for job in JOBS.values() for step in job["steps"]]


def test_every_action_is_one_commit_and_says_which_release() -> None:
    used = re.findall(r"uses: (.+)", FILE.read_text("utf-8"))

    assert [] == [
        action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+", action)
    ]
    assert len(used) == sum("uses" in step for step in steps())


def test_a_change_is_tested_by_what_everybody_runs() -> None:
    assert ".ci/run" in [step.get("run") for step in JOBS["test"]["steps"]]


def test_a_tag_publishes_both_generations_once_the_tests_have_passed() -> None:
    stages = re.findall(r"^FROM .+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert (["classic", "current"], "test") == (TARGETS, JOBS["publish"]["needs"])
    assert "startsWith(github.ref, 'refs/tags/v')" == JOBS["publish"]["if"]
    assert set(TARGETS) <= set(stages)


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_that_is_built_is_the_one_that_is_pushed(target: str, tmp_path: Path) -> None:
    docker, log = tmp_path / "docker", tmp_path / "log"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (script,) = [step["run"] for step in JOBS["publish"]["steps"] if "docker push" in str(step)]
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DOCKER_LOG": str(log),
        "TOKEN": "canary-token",
        "TARGET": target,
        "REGISTRY": "registry.example",
        "GITHUB_REPOSITORY": "Owner/Name",
        "GITHUB_REF_NAME": "v1.2.3",
        "GITHUB_ACTOR": "owner",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_SHA": "0" * 40,
    }

    subprocess.run(["/bin/bash", "-eo", "pipefail", "-c", script], env=environ, check=True)

    login, build, push = log.read_text().splitlines()
    image = f"registry.example/owner/name:1.2.3-{target}"
    assert "login registry.example --username owner --password-stdin" == login
    assert f"push {image}" == push
    assert f"--target {target} " in build
    assert build.endswith(f"--tag {image} .")
    assert "canary-token\n" == Path(f"{log}.password").read_text()
