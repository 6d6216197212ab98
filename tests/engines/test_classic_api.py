"""What the worker does around a classic that is silent, lies, drags its feet or breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.engines.fake_classic import (
    DONE,
    END,
    INFO,
    MODEL,
    Collected,
    FakeClassic,
    Running,
    fake_classic,
    make_checkout,
)
from tests.fake_engine import Call
from worker.contract.openai_completion import system_context
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    EngineStartFailed,
    InvalidJob,
    TooLarge,
    UnknownRoute,
)

LIMIT = 5.0
LATE = 0.1  # seconds after which an engine notices that its caller is gone
OOM = "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
ASSERT = "RuntimeError: CUDA error: device-side assert triggered"


def trace(exception: str) -> list[str]:
    return [
        "Traceback (most recent call last):",
        '  File "/srv/webui/modules/text_generation.py", line 339, in generate_reply_HF',
        "    output = shared.model.generate(**generate_params)[0]",
        exception,
    ]


def text(said: str) -> dict[str, Any]:
    return {"event": "text_stream", "message_num": 0, "text": said}


def history(said: str) -> dict[str, Any]:
    pairs = [["Hi", said]]
    return {"event": "text_stream", "history": {"internal": pairs, "visible": pairs}}


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[Running]:
    async with fake_classic(make_checkout(tmp_path), FakeClassic()) as running:
        yield running


async def test_an_honest_empty_text_is_an_answer(it: Running) -> None:
    it.fake.answers["generate"] = {"results": [{"text": ""}]}

    assert {"results": [{"text": ""}]} == await it.job("/generate", {"prompt": "x"})


@pytest.mark.parametrize(
    ("exception", "error", "says", "aborted"),
    [
        (OOM, EngineBroken, "not enough memory for this model and context; shorten", 0),
        (ASSERT, EngineBroken, "CUDA error", 1),
        ("KeyError: '/srv/secret/file'", EngineBroken, "the engine failed at this request: ", 0),
    ],
)
async def test_a_generation_that_failed_inside_is_failed(
    it: Running, exception: str, error: type[Exception], says: str, aborted: int
) -> None:
    it.fake.answers["generate"] = {"results": [{"text": "half"}]}
    it.fake.generation = [*trace(exception), DONE.format(3)]
    with pytest.raises(error) as caught:
        await it.job("/generate", {"prompt": "x"})

    assert (True, False, aborted) == (
        says in str(caught.value),
        "secret" in str(caught.value),
        it.engine.aborted,
    )


async def test_a_stream_that_failed_in_the_middle_is_failed_with_its_partial_text(
    it: Running,
) -> None:
    it.fake.play([text("half"), END], lines=[*trace(OOM), DONE.format(3)])
    with pytest.raises(EngineBroken) as caught:
        await it.job("/generate", {"prompt": "x", "stream": True})

    assert {"partial": "half"} == caught.value.detail


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"", EngineBroken, "an empty answer"),
        (None, EngineBroken, "broke off"),
        (b"<html>nothing</html>", EngineBroken, "not JSON"),
        (b"HTTP/1.0 404 X\r\nContent-Type: text/html\r\n\r\n<html>", EngineRefused, "status 404"),
        ({"results": []}, EngineBroken, "makes no sense"),
    ],
)
async def test_what_is_no_answer_is_failed(
    it: Running, answer: Any, error: type[Exception], says: str
) -> None:
    it.fake.answers["generate"] = answer
    with pytest.raises(error, match=says):
        await it.job("/generate", {"prompt": "x"})


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_websocket_that_closes_before_the_end_is_failed(it: Running, code: int) -> None:
    it.fake.play([history("half")], code=code)
    with pytest.raises(EngineBroken, match="broke off") as caught:
        await it.job("/chat", {"user_input": "Hi"})

    assert {"partial": history("half")["history"]} == caught.value.detail


@pytest.mark.parametrize("frame", [["no"], {"event": "hello"}, {"event": "text_stream"}])
async def test_a_frame_that_makes_no_sense_is_failed(it: Running, frame: Any) -> None:
    it.fake.play([frame, END])
    with pytest.raises(EngineBroken, match="makes no sense"):
        await it.job("/chat", {"user_input": "Hi"})


async def test_a_stream_gives_frames_and_the_whole_text(it: Running) -> None:
    it.fake.play([text(""), text(" Pa"), text("ris"), END])
    sink = Collected()
    answer = await it.job("/generate", {"prompt": "x", "stream": True}, sink)

    frames = [{"event": "text_stream", "text": part} for part in (" Pa", "ris")]
    assert ({"results": [{"text": " Paris"}]}, [*frames, {"event": "stream_end"}]) == (
        answer,
        sink.chunks,
    )


@pytest.mark.parametrize(
    ("body", "limit", "truncation"),
    [({}, 201, 2049), ({"stopping_strings": ["a"]}, None, None), ({"max_new_tokens": 0}, 2, 2049)],
)
async def test_a_stream_asks_for_the_token_that_it_holds_back(
    it: Running, body: dict[str, Any], limit: int | None, truncation: int | None
) -> None:
    it.fake.play([text("a"), END])
    await it.job("/generate", {"prompt": "x", "stream": True, **body})
    sent = it.fake.sent("stream")

    assert (limit, truncation) == (sent.get("max_new_tokens"), sent.get("truncation_length"))


async def test_what_is_sent_is_what_was_meant(it: Running) -> None:
    body = {
        "prompt": "x",
        "do_sample": "false",
        "temperature": None,
        "max_length": "8",
        "custom_token_bans": 7,
        "stopping_strings": '"a","b"',
        "other": [1],
    }
    await it.job("/generate", body)

    assert {
        "prompt": "x",
        "other": [1],
        "do_sample": False,
        "max_new_tokens": 8,
        "custom_token_bans": "7",
        "stopping_strings": ["a", "b"],
    } == it.fake.sent("generate")


async def test_a_character_without_a_file_in_the_checkout_is_spelled_out(it: Running) -> None:
    (Path(it.fake.checkout) / "characters" / "Example.yaml").unlink()
    it.fake.play([history("Hello"), END])
    await it.job("/chat", {"user_input": "Hi", "character": "Example", "name2": "Eve"})
    sent = it.fake.sent("chat-stream")

    assert (False, "Eve", True) == ("character" in sent, sent["name2"], bool(sent["context"]))


async def test_a_chat_with_nothing_to_continue_is_its_own_answer(it: Running) -> None:
    answer = await it.job("/chat", {"user_input": "x", "_continue": True})

    assert {"results": [{"history": {"internal": [], "visible": []}}]} == answer
    assert [] == it.fake.calls


async def until_closed(it: Running, endpoint: str, body: dict[str, Any]) -> asyncio.Task[Any]:
    """A job whose first frame has come and whose generation goes on."""

    async def script(socket: Any, asked: Any) -> None:
        await socket.send_json(text("half") if "prompt" in asked else history("half"))
        await it.fake.stopped.wait()
        asyncio.get_running_loop().call_later(LATE, it.fake.print, DONE.format(3))
        await socket.send_json(END)

    it.fake.frames = script
    sink = Collected()
    job = asyncio.create_task(it.job(endpoint, {**body, "stream": True}, sink))
    await asyncio.wait_for(sink.first.wait(), LIMIT)
    return job


async def test_a_cancelled_stream_is_stopped_in_the_engine(it: Running) -> None:
    job = await until_closed(it, "/generate", {"prompt": "x"})
    job.cancel()
    await asyncio.wait_for(it.fake.closed.wait(), LIMIT)
    await asyncio.wait({job})

    assert (True, True) == (job.cancelled(), it.fake.stopped.is_set())


async def test_the_end_of_a_cancelled_generation_is_not_taken_for_the_nexts(it: Running) -> None:
    """Both ends are told late; the second one is that of a failure."""

    async def answer(call: Call) -> Any:
        await asyncio.sleep(2 * LATE)
        loop = asyncio.get_running_loop()
        loop.call_later(LATE, lambda: it.fake.print(*trace(OOM), DONE.format(1)))
        return {"results": [{"text": "half"}]}

    it.fake.answers["generate"], it.fake.generation = answer, []
    job = await until_closed(it, "/generate", {"prompt": "x"})
    job.cancel()
    with pytest.raises(EngineBroken, match="not enough memory"):
        await it.job("/generate", {"prompt": "x"})


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        ("/generate", {"prompt": "x"}, {"text": "half"}),
        ("/chat", {"user_input": "Hi"}, {"history": history("half")["history"]}),
    ],
)
async def test_a_stopped_stream_gives_what_there_is(
    it: Running, endpoint: str, body: dict[str, Any], expected: Any
) -> None:
    job = await until_closed(it, endpoint, body)
    await it.job("/stop-stream", {})

    assert {"results": [expected]} == await asyncio.wait_for(job, LIMIT)


async def test_a_stream_that_does_not_end_when_told_is_closed(tmp_path: Path) -> None:
    fake = FakeClassic()
    fake.play([text("half")], lines=[DONE.format(3)])
    sink = Collected()
    async with fake_classic(make_checkout(tmp_path), fake, stop_seconds=0.2) as it:
        job = asyncio.create_task(it.job("/generate", {"prompt": "x", "stream": True}, sink))
        await asyncio.wait_for(sink.first.wait(), LIMIT)
        job.cancel()
        await asyncio.wait_for(fake.closed.wait(), LIMIT)
        await asyncio.wait({job})

    assert job.cancelled()


async def blocked(it: Running) -> asyncio.Task[Any]:
    """A blocking generation that goes on until the engine is told to stop."""
    asked = asyncio.Event()

    async def answer(call: Call) -> Any:
        asked.set()
        await it.fake.stopped.wait()
        return {"results": [{"text": "half"}]}

    it.fake.answers["generate"] = answer
    job = asyncio.create_task(it.job("/generate", {"prompt": "x"}))
    await asyncio.wait_for(asked.wait(), LIMIT)
    return job


async def test_a_cancelled_blocking_generation_is_stopped_in_the_engine(it: Running) -> None:
    job = await blocked(it)
    job.cancel()
    await asyncio.wait_for(it.fake.stopped.wait(), LIMIT)
    await asyncio.wait({job})

    assert job.cancelled()


async def test_a_stopped_blocking_generation_gives_what_there_is(it: Running) -> None:
    job = await blocked(it)
    await it.job("/stop-stream", {})

    assert {"results": [{"text": "half"}]} == await asyncio.wait_for(job, LIMIT)


async def test_a_second_generation_waits_for_the_first(it: Running) -> None:
    first = await blocked(it)
    second = asyncio.create_task(it.job("/generate", {"prompt": "y"}))
    await asyncio.sleep(0)
    asked = [key for key, _ in it.fake.calls]
    await it.job("/stop-stream", {})
    await asyncio.wait_for(asyncio.gather(first, second), LIMIT)

    assert ["generate"] == asked


async def test_a_load_waits_for_what_runs(it: Running) -> None:
    job = await blocked(it)
    load = asyncio.create_task(it.job("/model", {"action": "load", "model_name": "other"}))
    await asyncio.sleep(0)
    before = [key for key, _ in it.fake.calls]
    await it.job("/stop-stream", {})
    await asyncio.wait_for(asyncio.gather(job, load), LIMIT)

    assert (["generate"], "other") == (before, it.engine.model_name)


async def test_a_load_that_was_begun_goes_on_when_its_caller_is_gone(it: Running) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> Any:
        begun.set()
        await go_on.wait()
        return {"result": INFO}

    it.fake.answers["model load"] = answer
    load = asyncio.create_task(it.job("/model", {"action": "load", "model_name": "other"}))
    await asyncio.wait_for(begun.wait(), LIMIT)
    load.cancel()
    await asyncio.wait({load})
    after = asyncio.create_task(it.job("/generate", {"prompt": "x"}))
    go_on.set()
    await asyncio.wait_for(after, LIMIT)

    assert "other" == it.engine.model_name


async def test_a_failed_load_leaves_no_model_and_its_args_are_undone(it: Running) -> None:
    it.fake.answers["model load"] = {"error": {"message": "ValueError('no /srv/x/weights')"}}
    body = {"action": "load", "model_name": "other", "args": {"loader": "ExLlama"}}
    with pytest.raises(EngineStartFailed) as caught:
        await it.job("/model", body)
    named = await it.job("/model")
    unloaded = it.fake.calls[-1][0]
    del it.fake.answers["model load"]
    await it.job("/model", {"action": "load", "model_name": MODEL})

    assert ("other could not be loaded: no weights", {"result": None}, "model unload") == (
        str(caught.value),
        named,
        unloaded,
    )
    assert {"loader": None, "lora": []} == it.fake.sent("model load")["args"]


@pytest.mark.parametrize(
    ("payload", "error", "says"),
    [
        ({"model_name": "../x"}, UnknownRoute, f"there are: {MODEL}, other"),
        ({"model_name": "None"}, UnknownRoute, "there is no model 'None'"),
        ({"model_name": MODEL, "args": [1]}, InvalidJob, "args is .*; it must be an object"),
        ({"model_name": MODEL, "args": {"trust_remote_code": True}}, InvalidJob, "is refused"),
        ({"model_name": MODEL, "args": {"model_dir": "/"}}, InvalidJob, "can't set model_dir"),
        ({"model_name": MODEL, "args": {"lora": ["../x"]}}, UnknownRoute, "no LoRA '../x'"),
        ({"model_name": MODEL, "args": {"n_ctx": "much"}}, InvalidJob, "args.n_ctx is"),
        ({"model_name": MODEL, "args": {"compute_dtype": "x"}}, InvalidJob, "bfloat16"),
    ],
)
async def test_a_load_takes_only_what_loaders_take(
    it: Running, payload: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await it.job("/model", {"action": "load", **payload})

    assert ([], MODEL) == (
        [key for key, _ in it.fake.calls if key == "model load"],
        it.engine.model_name,
    )


@pytest.mark.parametrize(
    ("settings", "args", "allowed"),
    [
        ({"engine_load_any_args": True}, {"settings": "x.yaml"}, True),
        ({"engine_load_any_args": True}, {"trust_remote_code": True}, False),
        ({"engine_trust_remote_code": True}, {"trust_remote_code": True}, True),
    ],
)
async def test_a_setting_allows_more(
    tmp_path: Path, settings: dict[str, Any], args: dict[str, Any], allowed: bool
) -> None:
    body = {"action": "load", "model_name": MODEL, "args": args}
    async with fake_classic(make_checkout(tmp_path), FakeClassic(), **settings) as it:
        try:
            await it.job("/model", body)
        except InvalidJob:
            assert not allowed
        else:
            assert allowed


@pytest.mark.parametrize("action", ["load", "unload"])
async def test_administration_can_be_switched_off(tmp_path: Path, action: str) -> None:
    async with fake_classic(make_checkout(tmp_path), FakeClassic(), model_admin="off") as it:
        with pytest.raises(EngineRefused, match="MODEL_ADMIN"):
            await it.job("/model", {"action": action, "model_name": MODEL})


async def test_info_tells_no_secret_and_no_path(it: Running) -> None:
    args = (await it.job("/model", {"action": "info"}))["result"]["shared.args"]

    assert {"model_dir": "models/", "api_key": None, "loader": None} == args


async def test_without_a_model_everything_that_needs_one_is_refused(it: Running) -> None:
    it.engine.model_name = None
    for endpoint in ("/generate", "/token-count", "/v1/completions"):
        with pytest.raises(EngineDown, match="no model is loaded; load one"):
            await it.job(endpoint, {"prompt": "x"})

    assert {"object": "list", "data": []} == await it.job("/v1/models")


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_too_long_for_a_websocket_is_told_or_goes_the_other_way(it: Running) -> None:
    body = {"user_input": "x" * 2**20}
    it.fake.answers["chat"] = {"results": [{"history": history("Hello")["history"]}]}
    answer = await it.job("/chat", body)
    with pytest.raises(TooLarge, match="leave out stream"):
        await it.job("/chat", {**body, "stream": True})

    assert history("Hello")["history"] == answer["results"][0]["history"]


async def test_a_completion_is_a_generation_with_openais_defaults(it: Running) -> None:
    it.fake.generation = [DONE.format(4)]
    body = {"prompt": "Hello there", "max_tokens": 4, "stop": "\n", "seed": 5, "echo": True}
    answer = await it.job("/v1/completions", body)

    assert {
        "prompt": "Hello there",
        "max_new_tokens": 5,
        "truncation_length": 101,
        "stopping_strings": ["\n"],
        "temperature": 1.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "seed": 5,
    } == it.fake.sent("generate")
    assert {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6} == answer["usage"]
    assert [
        {"index": 0, "text": "Hello there Paris", "finish_reason": "length", "logprobs": None}
    ] == answer["choices"]


async def test_a_chat_is_put_in_the_models_template(it: Running) -> None:
    it.fake.generation = [DONE.format(1)]
    messages = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]
    answer = await it.job("/v1/chat/completions", {"messages": messages, "temperature": 0})
    sent = it.fake.sent("generate")

    assert (
        "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    ) == sent["prompt"]
    assert (False, False) == ("temperature" in sent, sent["do_sample"])
    assert ({"role": "assistant", "content": "Paris"}, "stop") == (
        answer["choices"][0]["message"],
        answer["choices"][0]["finish_reason"],
    )


async def test_a_chats_stream_is_the_same_in_events(it: Running) -> None:
    it.fake.generation = [DONE.format(2)]
    it.fake.play([text(""), text(" Pa"), text("ris"), END])
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    sink = Collected()
    answer = await it.job(
        "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}, sink
    )
    events = [json.loads(chunk.removeprefix("data: ")) for chunk in sink.chunks[:-1]]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]

    assert [{"role": "assistant", "content": ""}, {"content": "Pa"}, {"content": "ris"}, {}] == (
        deltas
    )
    assert (answer["usage"], "data: [DONE]\n\n", "Paris") == (
        events[-1]["usage"],
        sink.chunks[-1],
        answer["choices"][0]["message"]["content"],
    )


@pytest.mark.parametrize(
    ("endpoint", "payload", "says"),
    [
        ("/v1/completions", {}, "prompt must be one string"),
        ("/v1/completions", {"prompt": ["a", "b"]}, "a job for each prompt"),
        ("/v1/completions", {"prompt": "x", "n": 2}, "n must be 1"),
        ("/v1/completions", {"prompt": "x", "logprobs": 3}, "logprobs"),
        ("/v1/completions", {"prompt": "x", "stop": ""}, "an empty string"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x " * 100}, "the prompt has 100 tokens and the context"),
        ("/v1/chat/completions", {}, "messages is missing"),
        ("/v1/chat/completions", {"messages": [{"role": "x"}]}, "role system, user or"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 1}]}, "be a string"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "tools": [{}]},
            "this engine can't give tools; leave it out",
        ),
    ],
)
async def test_what_can_not_be_translated_is_refused(
    it: Running, endpoint: str, payload: Any, says: str
) -> None:
    with pytest.raises(InvalidJob, match=says):
        await it.job(endpoint, payload)

    assert "generate" not in [key for key, _ in it.fake.calls]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("<|im_start|>system\n<|im_end|>\n", "<|im_start|>system\nBe terse.<|im_end|>\n"),
        ("[INST] <<SYS>>\nHi.\n<</SYS>>\n\n", "[INST] <<SYS>>\nBe terse.\n<</SYS>>\n\n"),
        ("### System:\nAn AI.\n\n", "### System:\nBe terse.\n\n"),
        ("<|system|>\n<|end|>\n", "<|system|>\nBe terse.<|end|>\n"),
        ("<|system|>", "<|system|>Be terse."),
        ("Below is an instruction.\n\n", "Be terse.\n\n"),
        ("", "Be terse.\n"),
    ],
)
def test_a_system_message_takes_the_place_of_the_templates_own(context: str, expected: str) -> None:
    assert expected == system_context(context, "Be terse.")


async def test_another_openai_route_names_those_that_there_are(it: Running) -> None:
    with pytest.raises(UnknownRoute, match="it has GET /v1/models, POST /v1/completions"):
        await it.job("/v1/embeddings", {"input": "x"})


async def test_the_loaded_model_is_listed(it: Running) -> None:
    entry = {"id": MODEL, "object": "model", "created": 0, "owned_by": "user"}

    assert {"object": "list", "data": [entry]} == await it.job("/v1/models")
