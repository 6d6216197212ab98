"""What a large job took is given back when it is over."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.memory import give_back_large_blocks

_LARGE_AND_SMALLER = """
from benchmarks.machine import resident_mb
from worker.memory import give_back_large_blocks

give_back_large_blocks()
before = resident_mb("self")
large = b"x" * 30_000_000
del large
smaller = [b"x" * 10_000_000 for _ in range(2)]
del smaller
print(resident_mb("self") - before)
"""


@pytest.mark.skipif(not give_back_large_blocks(), reason="another C library than glibc")
def test_memory_of_a_large_job_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LARGE_AND_SMALLER],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )

    assert float(done.stdout) < 2
