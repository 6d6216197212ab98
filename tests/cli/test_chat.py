"""chat, as a process whose stdin is a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from cli import exits
from tests.cli.conftest import ROOT, Cli, finish
from tests.fake_worker import TEXT


async def test_a_turn_is_streamed_and_its_history_sent_with_the_next_one(cli: Cli) -> None:
    done = await cli("chat", stdin="Hello\nAnd then?\n")

    assert (exits.OK, f"{TEXT}\n{TEXT}\n") == (done.code, done.out)
    second = cli.worker.inputs[1]["payload"]
    assert ("And then?", [["Hello", TEXT]]) == (second["user_input"], second["history"]["internal"])


async def test_options_reach_the_payload(cli: Cli) -> None:
    await cli(
        *("chat", "--mode", "chat", "--character", "Example", "--template", "Alpaca"),
        *("--name", "Ann", "--temperature", "0", "--max-tokens", "9"),
        stdin="Hello\n",
    )

    sent = cli.worker.inputs[0]["payload"]
    expected = {
        "mode": "chat",
        "character": "Example",
        "instruction_template": "Alpaca",
        "your_name": "Ann",
        "temperature": 0.0,
        "max_new_tokens": 9,
    }
    assert expected == {name: sent[name] for name in expected}


async def test_retry_answers_the_last_turn_again(cli: Cli) -> None:
    await cli("chat", stdin="Hello\n/retry\nMore\n")

    assert True is cli.worker.inputs[1]["payload"]["regenerate"]
    assert [["Hello", TEXT]] == cli.worker.inputs[2]["payload"]["history"]["internal"]


async def test_continue_prints_only_what_is_new(cli: Cli) -> None:
    done = await cli("chat", stdin="Hello\n/continue\n")

    assert f"{TEXT}\n{TEXT}\n" == done.out
    assert True is cli.worker.inputs[1]["payload"]["_continue"]


async def test_save_writes_the_history_and_replaces_no_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"

    done = await cli("chat", stdin=f"Hello\n/save {file}\n/save {file}\n/quit\nnever\n")

    pairs = [["Hello", TEXT]]
    assert {"internal": pairs, "visible": pairs} == json.loads(file.read_text())
    assert "can't be written" in done.err
    assert 1 == len(cli.worker.inputs)


async def test_a_failed_turn_is_said_and_not_in_the_history(cli: Cli) -> None:
    done = await cli("chat", stdin="fail\nHello\n")

    assert "the prompt is missing" in done.err
    assert [] == cli.worker.inputs[1]["payload"]["history"]["internal"]
    assert exits.OK == done.code


async def test_commands_before_the_first_turn_say_what_is_missing(cli: Cli) -> None:
    done = await cli("chat", stdin="/retry\n/nonsense\n")

    assert "/retry needs a reply" in done.err
    assert "there is no command /nonsense" in done.err
    assert [] == cli.worker.inputs


async def test_ctrl_c_cancels_the_reply_and_the_chat_goes_on(cli: Cli) -> None:
    process = await cli.start("chat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"slow\n")
    await asyncio.wait_for(process.stdout.readuntil(b"so on"), 20)

    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.stdout.readuntil(b"\n"), 20)
    done = await finish(process, "Hello\n")

    statuses = [job.status for job in cli.emulator.jobs.values()]
    assert (["CANCELLED", "COMPLETED"], exits.OK) == (statuses, done.code)
    kept = cli.worker.inputs[1]["payload"]["history"]["internal"]
    assert ["slow"] == [user for user, _ in kept]
    assert TEXT + "\n" == done.out


async def test_sigterm_cancels_the_reply_and_ends_the_chat(cli: Cli) -> None:
    process = await cli.start("chat")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"slow\n")
    await asyncio.wait_for(process.stdout.readuntil(b"so on"), 20)

    process.terminate()
    code = await asyncio.wait_for(process.wait(), 20)

    statuses = [job.status for job in cli.emulator.jobs.values()]
    assert (["CANCELLED"], exits.TERMINATED) == (statuses, code)


async def test_json_prints_a_line_for_each_turn(cli: Cli) -> None:
    done = await cli("chat", "--json", stdin="Hello\n")

    assert TEXT == done.json["reply"]
    assert [["Hello", TEXT]] == done.json["history"]["internal"]


async def test_in_a_terminal_a_reply_has_its_tokens_a_second(cli: Cli) -> None:
    terminal, stdin = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "chat", "--url", cli.emulator.url + "/v2"),
        cwd=ROOT,
        stdin=stdin,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(stdin)
    os.write(terminal, b"Hello\n/quit\n")
    done = await finish(process)
    os.close(terminal)

    assert "tokens/s]" in done.err
    assert ["/chat", "/token-count"] == [sent["api"]["endpoint"] for sent in cli.worker.inputs]
