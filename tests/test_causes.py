"""What an engine died of: out of memory, a CUDA error, a crash, or somebody who killed it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from worker.engines.embedded_child import explain
from worker.engines.webui_causes import CUDA, MEMORY, cause_of
from worker.engines.webui_engine import WebuiProcess
from worker.process import EngineProcess

ABORT = "import os; os.abort()"
SEGFAULT = "import os; os.kill(os.getpid(), 11)"
KILLED = "import os; os.kill(os.getpid(), 9)"
GPU_MEMORY = "CUDA error: out of memory"
GPU_FAULT = "CUDA error: an illegal memory access was encountered"
CASES = [
    pytest.param(GPU_MEMORY, ABORT, MEMORY, id="out of the GPU's memory"),
    pytest.param(GPU_FAULT, ABORT, CUDA, id="CUDA error"),
    pytest.param("listening", ABORT, "killed by signal 6 (it aborted)", id="aborted"),
    pytest.param("listening", SEGFAULT, "killed by signal 11 (it crashed)", id="crashed"),
    pytest.param(GPU_FAULT, KILLED, "from outside)", id="killed long after an error"),
]


def program(printed: str, end: str) -> list[str]:
    return [sys.executable, "-c", f"print({printed!r}, flush=True); {end}"]


@pytest.mark.parametrize(("printed", "end", "cause"), CASES)
async def test_the_embedded_engines_cause_of_death(printed: str, end: str, cause: str) -> None:
    process = EngineProcess.spawn(
        program(printed, end), cwd=Path.cwd(), env=dict(os.environ), log=lambda _: None
    )
    await asyncio.wait_for(process.wait_exit(), 10)

    assert cause in explain(process)


@asynccontextmanager
async def webui(argv: list[str], *, until: str = "") -> AsyncIterator[WebuiProcess]:
    """A ready webui that runs this program; it has printed `until`."""
    printed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def log(line: str) -> None:
        if until and until in line:
            loop.call_soon_threadsafe(printed.set)

    process = WebuiProcess(log)
    process.spawn(argv, folder=Path.cwd(), environment=dict(os.environ), ports=())
    try:
        process.set_ready()
        if until:
            await asyncio.wait_for(printed.wait(), 10)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(("printed", "end", "cause"), CASES)
async def test_the_webuis_cause_of_death(
    tmp_path: Path, printed: str, end: str, cause: str
) -> None:
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n{end}"
    async with webui(program(printed, f"\n{waits}")) as process:
        go.touch()

        assert cause in await asyncio.wait_for(process.wait_died(), 10)


async def test_a_webui_that_was_ended_for_a_cuda_error_died_of_that() -> None:
    sleeps = program(GPU_FAULT, "import time; time.sleep(60)")
    async with webui(sleeps, until=GPU_FAULT) as process:
        process.abort()

        assert f"the engine ended: {CUDA}" == await asyncio.wait_for(process.wait_died(), 10)


@pytest.mark.parametrize(
    ("code", "printed", "cause"),
    [(-6, GPU_FAULT, CUDA), (-11, "x", "killed by signal 11"), (-9, GPU_FAULT, "from outside)")],
)
async def test_a_llama_servers_cause_of_death(code: int, printed: str, cause: str) -> None:
    sleeps = program(printed, "import time; time.sleep(60)")
    async with webui(sleeps, until=printed) as process:
        process.report_child_death("engine's llama-server", code)
        died = await asyncio.wait_for(process.wait_died(), 10)

        assert (True, True) == (died.startswith("the engine's llama-server ended: "), cause in died)


@pytest.mark.parametrize(
    "line",
    [
        '    config_class = CONFIG_MAPPING[config_dict["model_type"]]',  # transformers 4.35
        "The checkpoint has model type `odd` but Transformers does not recognize this architecture",
    ],
)
def test_a_kind_of_model_that_transformers_does_not_know_is_told(line: str) -> None:
    assert "it does not know this kind of model" == cause_of(["Loading odd...", line, "'odd'"])
