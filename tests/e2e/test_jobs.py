"""Jobs through /run and /runsync on the real worker, under its own job loop and the SDK's."""

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.conftest import SLOTS, Platform

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
GREEDY = {"do_sample": False, "repetition_penalty": 1.0}
PROMPT = "The capital of France is"
# Seconds until a slot is free. It takes a tenth of one where nothing else runs; the SDK's own loop
# may be a second late, and a busy machine later.
SOON = 4
LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _idle(platform: Platform) -> None:
    """Each test begins on an engine that has nothing left of the one before."""
    await platform.until_busy(0)


async def test_a_plain_jobs_output_is_the_engines_object(platform: Platform) -> None:
    answer = await platform.runsync("/generate", prompt=PROMPT, max_new_tokens=1, **GREEDY)

    expected = ("COMPLETED", {"results": [{"text": " Paris"}]})
    assert expected == (answer["status"], answer["output"])


async def test_a_failed_job_is_failed_with_its_sentence(platform: Platform) -> None:
    answer = await platform.runsync("/generate", prompt=PROMPT, temperature="hot")

    assert ("FAILED", True) == (answer["status"], answer["error"].startswith("temperature is"))


async def stream(platform: Platform, job_id: str) -> list[Any]:
    """All chunks of a job, polled as a client does."""
    chunks: list[Any] = []
    while True:
        answer = await platform.get(f"stream/{job_id}")
        chunks += [part["output"] for part in answer["stream"]]
        if answer["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
            return chunks
        await asyncio.sleep(0.01)


async def test_a_streamed_job_delivers_frames_and_the_assembled_object(platform: Platform) -> None:
    job_id = await platform.run(
        "/generate", prompt=PROMPT, max_new_tokens=20, stream=True, **GREEDY
    )
    frames = await asyncio.wait_for(stream(platform, job_id), 30)
    result = await platform.result(job_id)

    texts = "".join(frame.get("text", "") for frame in frames)
    expected = ("COMPLETED", {"results": [{"text": texts}]}, "stream_end")
    assert expected == (result["status"], result["output"], frames[-1]["event"])
    assert list(range(len(frames))) == [frame["message_num"] for frame in frames]


async def test_an_openai_stream_is_whole_events_and_ends_with_done(platform: Platform) -> None:
    messages = [{"role": "user", "content": "Count: 日本 🎉"}]
    job_id = await platform.run(
        "/v1/chat/completions", messages=messages, max_tokens=20, temperature=0, stream=True
    )
    chunks = await asyncio.wait_for(stream(platform, job_id), 30)
    result = await platform.result(job_id)

    events = "".join(chunks).split("\n\n")
    assert ("data: [DONE]", "") == (events[-2], events[-1])
    parts = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    text = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)
    assert text == result["output"]["choices"][0]["message"]["content"]


async def test_a_stream_on_the_openai_url_is_passed_on_as_events(platform: Platform) -> None:
    url = f"{platform.emulator.base}/openai/v1/completions"
    body = {"prompt": PROMPT, "max_tokens": 5, "stream": True}
    async with platform.http.post(url, json=body) as response:
        text = await response.text()

    assert ("text/event-stream", True) == (
        response.content_type,
        text.endswith("data: [DONE]\n\n"),
    )


async def test_as_many_generations_as_slots_run_at_once(platform: Platform) -> None:
    jobs = [await platform.run("/generate", **LONG) for _ in range(SLOTS)]
    await platform.until_busy(SLOTS)
    for job in jobs:
        await platform.post(f"cancel/{job}")
    await platform.until_busy(0)


async def test_twice_as_many_jobs_as_slots_all_complete(platform: Platform) -> None:
    payload = {"prompt": PROMPT, "max_new_tokens": 10, "ban_eos_token": True, **GREEDY}
    jobs = [await platform.run("/generate", **payload) for _ in range(2 * SLOTS)]
    results = await asyncio.gather(*(platform.result(job, 60) for job in jobs))

    assert [("COMPLETED", results[0]["output"])] * len(jobs) == [
        (result["status"], result["output"]) for result in results
    ]


async def test_a_job_without_a_slot_does_not_wait_behind_generations(platform: Platform) -> None:
    jobs = [await platform.run("/generate", **LONG) for _ in range(SLOTS)]
    await platform.until_busy(SLOTS)
    answer = await asyncio.wait_for(platform.runsync("/token-count", prompt=PROMPT), 5)
    still = await platform.busy()
    for job in jobs:
        await platform.post(f"cancel/{job}")
    await platform.until_busy(0)

    assert ({"results": [{"tokens": 5}]}, SLOTS) == (answer["output"], still)


async def test_stop_stream_ends_a_running_job_with_its_text(platform: Platform) -> None:
    job = await platform.run("/generate", **LONG)
    await platform.until_busy(1)
    await asyncio.sleep(0.2)
    await platform.runsync("/stop-stream")
    result = await platform.result(job)

    assert ("COMPLETED", True) == (result["status"], bool(result["output"]["results"][0]["text"]))


async def test_cancel_frees_the_slot_of_a_generation(platform: Platform) -> None:
    job = await platform.run("/generate", **LONG)
    await platform.until_busy(1)
    await platform.post(f"cancel/{job}")
    seconds = await platform.until_busy(0)

    print(f"cancel to free slot: {seconds:.3f} s")  # noqa: T201  # shown with -s
    assert "CANCELLED" == (await platform.get(f"status/{job}"))["status"]
    assert seconds < SOON


async def test_cancel_of_a_streamed_job_frees_the_slot(platform: Platform) -> None:
    job = await platform.run("/generate", stream=True, **LONG)
    await platform.until_busy(1)
    await platform.post(f"cancel/{job}")

    assert await platform.until_busy(0) < SOON


async def test_cancel_of_a_job_that_waits_for_a_slot_disturbs_nobody(platform: Platform) -> None:
    running = [await platform.run("/generate", **LONG) for _ in range(SLOTS)]
    await platform.until_busy(SLOTS)
    waiting = await platform.run("/generate", **LONG)
    # The SDK's own loop does not stop a job that it has not started yet.
    await asyncio.sleep(1)
    await platform.post(f"cancel/{waiting}")
    await asyncio.sleep(0.3)
    statuses = [(await platform.get(f"status/{job}"))["status"] for job in running]
    busy = await platform.busy()
    for job in running:
        await platform.post(f"cancel/{job}")
    await platform.until_busy(0)

    assert (["IN_PROGRESS"] * SLOTS, SLOTS) == (statuses, busy)


async def test_a_client_that_hangs_up_on_the_openai_url_frees_the_slot(platform: Platform) -> None:
    url = f"{platform.emulator.base}/openai/v1/completions"
    body = {"prompt": "Once upon a time", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    async with platform.http.post(url, json=body) as response:
        await response.content.readany()
        response.close()

    assert await platform.until_busy(0) < SOON


async def test_a_job_over_its_execution_time_is_timed_out_and_frees_the_slot(
    platform: Platform,
) -> None:
    job = await platform.run("/generate", policy={"executionTimeout": 5000}, **LONG)
    await platform.until_busy(1)
    result = await platform.result(job)

    assert "TIMED_OUT" == result["status"]
    assert await platform.until_busy(0) < SOON
