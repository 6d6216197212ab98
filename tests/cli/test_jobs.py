"""run, runsync, status, stream, cancel, health: against an emulator, as processes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path

from cli import exits
from emulator.server import running_emulator
from tests.cli.conftest import ROOT, Cli, finish
from tests.emulator.helpers import FAST, eventually
from tests.fake_worker import MODEL, TEXT, WORDS, fake_worker

JOB = {"input": {"api": {"method": "POST", "endpoint": "/generate"}, "payload": {"prompt": "Hi"}}}


async def test_runsync_prints_the_text_and_nothing_else_on_stdout(cli: Cli) -> None:
    done = await cli("runsync", "--prompt", "Hi")

    assert (exits.OK, TEXT + "\n") == (done.code, done.out)
    assert "COMPLETED, queued" in done.err


async def test_runsync_streams_the_text(cli: Cli) -> None:
    done = await cli("runsync", "--prompt", "Hi", "--stream")

    assert TEXT + "\n" == done.out
    assert "first text" in done.err
    assert cli.worker.inputs[0]["payload"]["stream"] is True


async def test_runsync_streams_an_openai_answer(cli: Cli) -> None:
    done = await cli("runsync", "--api", "/v1/completions", "--prompt", "Hi", "--stream")

    assert TEXT + "\n" == done.out
    assert re.search(r"total [\d.]+ s(, \d+ tokens, [\d.]+ tokens/s)?\]\n$", done.err)
    assert {"prompt": "Hi", "stream": True} == cli.worker.inputs[0]["openai_input"]


async def test_runsync_takes_a_job_from_a_file_with_its_policy(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**JOB, "policy": {"executionTimeout": 7000}}))

    done = await cli("runsync", str(file), "--json")

    job = cli.emulator.jobs[done.json["id"]]
    assert ("COMPLETED", 7.0) == (done.json["status"], job.policy.execution_timeout)


async def test_runsync_takes_a_bare_input_from_stdin(cli: Cli) -> None:
    done = await cli("runsync", "-", stdin=json.dumps(JOB["input"]))

    assert TEXT + "\n" == done.out


async def test_json_prints_every_chunk_and_the_answer_one_a_line(cli: Cli) -> None:
    done = await cli("runsync", "--prompt", "Hi", "--stream", "--json")

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert WORDS == [line["chunk"]["text"] for line in lines[:-1]]
    assert "COMPLETED" == lines[-1]["status"]
    assert "" == done.err


async def test_a_failed_job_is_code_1_and_its_sentence_on_stderr(cli: Cli) -> None:
    done = await cli("runsync", "--prompt", "fail")

    assert (exits.FAILED, "") == (done.code, done.out)
    assert "error: the prompt is missing; send one" in done.err


async def test_a_wrong_job_is_code_2_and_never_sent(cli: Cli) -> None:
    done = await cli("runsync", "--api", "/nonsense", "--prompt", "Hi")

    assert exits.USAGE == done.code
    assert "there is no endpoint /nonsense" in done.err
    assert {} == cli.emulator.jobs


async def test_a_file_that_is_no_job_is_code_2(cli: Cli) -> None:
    done = await cli("run", "-", stdin="[1]")

    assert exits.USAGE == done.code
    assert "- must hold an object" in done.err


async def test_run_prints_an_id_that_status_and_stream_take(cli: Cli) -> None:
    job_id = (await cli("run", "--prompt", "Hi", "--stream")).out.strip()

    streamed = await cli("stream", job_id)
    status = await cli("status", job_id, "--json")

    assert TEXT + "\n" == streamed.out
    assert re.fullmatch(r"\[COMPLETED, queued [\d.]+ s, execution [\d.]+ s\]\n", streamed.err)
    assert ("COMPLETED", exits.OK) == (status.json["status"], status.code)


async def test_cancel_ends_a_job(cli: Cli) -> None:
    job_id = (await cli("run", "--prompt", "slow", "--stream")).out.strip()

    cancelled = await cli("cancel", job_id)
    status = await cli("status", job_id)

    assert ("CANCELLED\n", exits.OK) == (cancelled.out, cancelled.code)
    assert exits.CANCELLED == status.code


async def test_ctrl_c_cancels_the_job_that_is_waited_for(cli: Cli) -> None:
    process = await cli.start("runsync", "--prompt", "slow", "--stream")
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.read(3), 20)

    process.send_signal(signal.SIGINT)
    done = await finish(process)

    assert (exits.INTERRUPTED, "[cancelled]\n") == (done.code, done.err)
    assert ["CANCELLED"] == [job.status for job in cli.emulator.jobs.values()]
    await eventually(lambda: list(cli.emulator.jobs) == cli.worker.stopped)


async def test_a_reader_that_has_had_enough_ends_the_job_without_a_traceback(cli: Cli) -> None:
    command = f"{sys.executable} -m cli runsync --prompt slow --stream --url {cli.emulator.url}/v2"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{command} | head -c 3; echo ${{PIPESTATUS[0]}}"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    done = await finish(process)

    assert (f" an{exits.FAILED}\n", "") == (done.out, done.err)
    await eventually(lambda: list(cli.emulator.jobs) == cli.worker.stopped)


async def test_a_job_that_no_worker_takes_is_cancelled_after_the_wait() -> None:
    async with running_emulator(limits=FAST) as emulator, fake_worker(emulator, slots=0) as worker:
        done = await Cli(emulator, worker)("runsync", "--prompt", "Hi", "--wait", "0.6")

    assert exits.TIMED_OUT == done.code
    assert "IN_QUEUE" in done.err
    assert "no worker took the job within 0.6 s" in done.err
    assert ["CANCELLED"] == [job.status for job in emulator.jobs.values()]


async def test_health_counts(cli: Cli) -> None:
    done = await cli("health", "--json")

    assert {"jobs", "workers"} == set(done.json)


async def test_an_unknown_job_is_code_3(cli: Cli) -> None:
    assert exits.UNREACHABLE == (await cli("status", "nobody")).code


async def test_a_missing_key_is_code_3_and_says_what_to_set() -> None:
    async with (
        running_emulator(limits=FAST, api_key="canary") as emulator,
        fake_worker(emulator) as worker,
    ):
        cli = Cli(emulator, worker)
        refused = await cli("health")
        let_in = await cli("health", RUNPOD_API_KEY="canary", RUNPOD_ENDPOINT_ID="local")

    assert (exits.UNREACHABLE, exits.OK) == (refused.code, let_in.code)
    assert "RUNPOD_API_KEY" in refused.err


async def test_the_model_s_name_is_text(cli: Cli) -> None:
    assert f"{MODEL}\n" == (await cli("runsync", "--api", "/model")).out


async def test_bench_reports_times_and_tokens(cli: Cli) -> None:
    cli.worker.pause = 0.005

    done = await cli("bench", "-n", "4", "-c", "2", "--json")

    report = done.json
    assert (exits.OK, 4, 0) == (done.code, report["completed"], report["failed"])
    assert 4 * len(WORDS) == report["tokens"]
    assert {"min", "p50", "p90", "p99", "max"} == set(report["tokens_per_second"])
    assert 0 < report["first_seconds"]["p50"] < report["total_seconds"]["p50"]


async def test_bench_with_failures_is_code_1_and_names_them(cli: Cli) -> None:
    done = await cli("bench", "-n", "2", "-c", "1", "--prompt", "fail")

    assert exits.FAILED == done.code
    assert "2 x the prompt is missing; send one" in done.err
