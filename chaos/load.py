"""Many jobs from many clients while workers are killed: all answered, once, and nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.dialect import words
from chaos.stage import Stage, family, running_stage, send, until

JOB_SECONDS = 120.0
QUIET_SECONDS = 30.0
_SAMPLES = 10
_FLAT = 1.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """kill_every: seconds between two killed workers, 0 for none."""

    jobs: int
    clients: int = 50
    workers: int = 2
    kill_every: float = 5.0


@dataclass(slots=True)
class Sample:
    """What a worker's process holds: bytes, descriptors."""

    memory: int
    descriptors: int


async def run_load(load: Load) -> dict[str, object]:
    """Run it on stand-in engines; the figures, with all that is wrong under "wrong"."""
    samples: list[Sample] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with running_stage(
            workers=load.workers, stand_in=True, settings={"TMPDIR": folder}
        ) as stage:
            await stage.until_well()
            answers, kills = await _all_jobs(stage, load, samples)
            completed = stage.emulator.endpoint.health()["jobs"]["completed"]
        left = os.listdir(folder)  # noqa: PTH208 - pathlib may not be used in async code
    seconds = time.monotonic() - started
    wrong = _wrong(load, answers, samples)
    if completed != load.jobs + 1:
        wrong.append(f"{completed - 1} jobs ended in place of {load.jobs}")
    if left:
        wrong.append(f"temporary files left: {left}")
    if processes := family(os.getpid()):
        wrong.append(f"processes left: {processes}")
    return {
        "jobs": load.jobs,
        "answers": dict(answers),
        "workers killed": kills,
        "seconds": round(seconds, 1),
        "memory (MB)": [round(sample.memory / 1e6, 1) for sample in samples],
        "descriptors": [sample.descriptors for sample in samples],
        "wrong": wrong,
    }


async def _all_jobs(stage: Stage, load: Load, samples: list[Sample]) -> tuple[Counter[str], int]:
    """Run the clients and the killer; how the jobs ended, and how many workers were killed."""
    numbers = iter(range(load.jobs))
    answers: Counter[str] = Counter()
    killer = asyncio.create_task(_kill(stage, load.kill_every))
    step = max(1, load.jobs // _SAMPLES)
    if load.kill_every == 0:
        samples.append(_sample(stage.workers()[0]))

    async def client() -> None:
        for number in numbers:
            answers[await _one_job(stage, number)] += 1
            if load.kill_every == 0 and answers.total() % step == 0:
                samples.append(_sample(stage.workers()[0]))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    if load.kill_every == 0:
        await _until_quiet(stage, samples)
    killer.cancel()
    (kills,) = await asyncio.gather(killer)
    return answers, kills


async def _until_quiet(stage: Stage, samples: list[Sample]) -> None:
    """Wait until as few descriptors are open as at first; kept connections take a while."""
    worker = stage.workers()[0]
    with suppress(asyncio.TimeoutError):
        await until(lambda: _sample(worker).descriptors <= samples[0].descriptors, QUIET_SECONDS)
    samples.append(_sample(worker))


async def _one_job(stage: Stage, number: int) -> str:
    """Run a job with a prompt of its own; how it ended."""
    payload = {"prompt": f"job {number}", "max_new_tokens": 20, "stream": number % 3 == 0}
    job = await stage.run("/generate", **payload)
    try:
        answer = await stage.result(job, JOB_SECONDS)
    except asyncio.TimeoutError:
        return "lost"
    if answer["status"] != "COMPLETED":
        return f"{answer['status']}: {answer.get('error')}"
    expected = "".join(words({"prompt": payload["prompt"], "n_predict": 20}))
    mine = answer["output"] == {"results": [{"text": expected}]}
    return "COMPLETED" if mine else "another job's answer"


async def _kill(stage: Stage, every: float) -> int:
    """Kill the oldest worker now and then, until cancelled; how many were killed."""
    kills = 0
    with suppress(asyncio.CancelledError):
        while every:
            await asyncio.sleep(every)
            send(stage.workers()[:1], signal.SIGKILL)
            kills += 1
    return kills


def _sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(int(memory.split()[1]) * 1024, descriptors)


def _wrong(load: Load, answers: Counter[str], samples: list[Sample]) -> list[str]:
    """What is not as promised."""
    wrong = [] if answers == Counter(COMPLETED=load.jobs) else [f"not all answered: {answers}"]
    if len(samples) > 2 and samples[-1].memory > samples[1].memory * _FLAT:
        wrong.append("memory grew by more than 10 %")
    if samples and samples[-1].descriptors > samples[0].descriptors:
        wrong.append("descriptors are left open")
    return wrong
