"""Obtain a model in a process of its own: the root folder, the hub's URL, MODEL, stall."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.models.times import LIMITS, QUICK
from worker.model_fetch import obtain
from worker.model_hub import Hub
from worker.model_places import places
from worker.model_source import parse

if __name__ == "__main__":
    root, url, model = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    found = obtain(
        parse(model),
        places=places(
            models_dir=None, baked=root / "baked", volume=root / "volume", local=root / "local"
        ),
        hub=Hub(endpoint=url),
        log=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - for a failed test
        limits=replace(LIMITS, patience=replace(QUICK, stall=float(sys.argv[4]))),
    )
    print(found)  # noqa: T201 - what the test reads
