"""A local job under which the engine dies: the caller's JSON and the terminal say the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

from chaos.mischief import MARK
from chaos.stage import STAND_IN
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent


def test_a_local_run_tells_what_the_engine_died_of() -> None:
    job = {
        "input": {
            "api": {"method": "POST", "endpoint": "/generate"},
            "payload": {"prompt": f"{MARK}CUDA error"},
        }
    }
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN), "ENGINE_PORT": str(free_port())}
    run = subprocess.run(
        [sys.executable, "handler.py", "--test_input", json.dumps(job)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    result = json.loads(run.stdout)

    assert (1, "FAILED", True) == (run.returncode, result["status"], result["error"] in run.stderr)
    assert "a CUDA error" in result["error"]
    assert {
        "log": ["llama.cpp is imported", "CUDA error: an illegal memory access was encountered"],
        "partial": " word",
    } == result["output"]["detail"]
