"""Every recorded answer of the classic ends as a success or as the one right failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_classic import (
    DONE,
    END,
    Collected,
    FakeClassic,
    fake_classic,
    make_checkout,
)
from worker.errors import EngineBroken, EngineDown, EngineStartFailed, InvalidJob, UnknownRoute
from worker.job import parse_job
from worker.progress import Progress

CONTRACT = Path(__file__).parent.parent / "contract"
CAUGHT = '  File "/srv/webui/modules/callbacks.py", line 56, in gentask'
UNCAUGHT = '  File "/srv/python/websockets/legacy/server.py", line 240, in handler'
SWALLOWED = (
    "Traceback (most recent call last):",
    CAUGHT,
    "    ret = self.mfunc(callback=_callback, *args, **self.kwargs)",
)
TEMPERATURE = "ValueError: `temperature` (=0.0) has to be a strictly positive float, otherwise"
CUDA = "AssertionError: Torch not compiled with CUDA enabled"
# What its log had while it answered with an empty text.
EXCEPTIONS = {
    "post_generate_temperature_zero": TEMPERATURE,
    "post_generate_mirostat": CUDA,
    "post_generate_preset_mirostat": CUDA,
    "post_generate_grammar": "AttributeError: 'NoneType' object has no attribute 'x'",
}
FAILED = "the engine failed at this request: "
ERRORS: dict[str, tuple[type[Exception], str]] = {
    "err_delete": (InvalidJob, '"GET" or "POST"'),
    "err_empty_body": (InvalidJob, "prompt is missing"),
    "err_get_generate": (InvalidJob, "/generate takes POST"),
    "err_malformed_json": (InvalidJob, "payload must be an object"),
    "err_missing_prompt": (InvalidJob, "prompt is missing"),
    "err_put": (InvalidJob, '"GET" or "POST"'),
    "err_query_string": (InvalidJob, "plain path"),
    "err_root": (InvalidJob, "endpoint is missing"),
    "err_text_content_type": (InvalidJob, "payload must be an object"),
    "err_token_count_missing": (InvalidJob, "prompt is missing"),
    "err_unknown_path_get": (UnknownRoute, "there is no endpoint"),
    "err_unknown_path_post": (UnknownRoute, "there is no endpoint"),
    "head_model": (InvalidJob, '"GET" or "POST"'),
    "options": (InvalidJob, '"GET" or "POST"'),
    "nomodel_post_chat": (EngineDown, "no model is loaded"),
    "nomodel_post_generate": (EngineDown, "no model is loaded"),
    "post_chat_character_unknown": (UnknownRoute, "does not exist"),
    "post_chat_instruct": (EngineBroken, FAILED + "'custom_system_message'"),
    "post_chat_instruct_custom_system_message": (EngineBroken, FAILED),
    "post_chat_instruct_template": (EngineBroken, FAILED),
    "post_chat_missing_user_input": (InvalidJob, "user_input is missing"),
    "post_chat_mode_unknown": (InvalidJob, "mode is "),
    "post_chat_template_unknown": (UnknownRoute, "does not exist"),
    "post_generate_after_failed_load": (EngineDown, "no model is loaded"),
    "post_generate_bad_number": (InvalidJob, "temperature is 'hot'"),
    "post_generate_grammar": (EngineBroken, FAILED),
    "post_generate_mirostat": (EngineBroken, FAILED + "Torch not compiled"),
    "post_generate_preset_mirostat": (EngineBroken, FAILED + "Torch not compiled"),
    "post_generate_preset_unknown": (UnknownRoute, "preset 'no-such-preset'"),
    "post_generate_prompt_list": (InvalidJob, "prompt is "),
    "post_generate_temperature_negative": (InvalidJob, "temperature is -1"),
    "post_generate_temperature_zero": (InvalidJob, "send do_sample false"),
    "post_model_load_missing_name": (InvalidJob, "model_name is missing"),
    "post_model_load_unknown": (EngineStartFailed, "no-such-model could not be loaded: "),
    "post_model_unknown_action": (UnknownRoute, "there is no action 'frobnicate'"),
    "ws_err_malformed": (InvalidJob, "payload must be an object"),
    "ws_err_missing_prompt": (InvalidJob, "prompt is missing"),
    "ws_err_path": (EngineBroken, "broke off"),
}
# Told otherwise than the classic does, on purpose.
OTHERWISE = {
    "get_model_after_failed_load": {"result": None},
    "err_trailing_slash": {"result": "SmolLM2-135M-Instruct"},
    "post_stop_stream_idle_empty_body": {"results": "success"},
    "err_no_content_length": {"result": "SmolLM2-135M-Instruct"},
}
NO_MODEL = ("nomodel_", "post_generate_after_failed_load", "get_model_after_failed_load")


def recordings() -> list[Any]:
    found = []
    for file in sorted(CONTRACT.glob("legacy*/*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if "request" in record and file.stem != "ws_disconnect":
            name = f"{file.parent.name}-{file.stem}"
            found.append(pytest.param(file.stem, record, id=name))
    assert len(found) > 90
    return found


def fake_of(stem: str, record: dict[str, Any]) -> FakeClassic:
    """A fake that says what was recorded, on HTTP and on its websockets."""
    fake = FakeClassic()
    request, response = record["request"], record["response"]
    body = request["body"] if isinstance(request["body"], dict) else {}
    action = f" {body['action']}" if "action" in body else ""
    answer = response.get("body")
    key = request["path"].removeprefix("/api/v1/") + action
    fake.answers[key] = None if response.get("error") else answer or b""
    if stem in EXCEPTIONS:
        fake.generation = [*SWALLOWED, EXCEPTIONS[stem], DONE.format(0)]
    if stem == "post_model_load_unknown":
        fake.answers["model list"] = {"result": ["None", "no-such-model"]}
    if request["path"] == "/api/v1/chat":
        trace = (
            "Traceback (most recent call last):",
            UNCAUGHT,
            "KeyError: 'custom_system_message'",
        )
        if answer:
            frames = [{"event": "text_stream", "history": answer["results"][0]["history"]}, END]
            fake.play(frames)
        else:
            fake.play([], code=1011, lines=trace)
    if request["path"] == "/api/v1/generate" and isinstance(answer, dict):
        fake.play([{"event": "text_stream", "text": answer["results"][0]["text"]}, END])
    if request["method"] == "WEBSOCKET":
        ended = "ConnectionClosed" in str(response["closed"])
        fake.play(response["frames"], code=1000 if ended else None)
    return fake


def job_of(request: dict[str, Any]) -> dict[str, Any]:
    """The job that makes the recorded request."""
    if request["method"] == "WEBSOCKET":
        body = request["body"]
        payload = {**body, "stream": True} if isinstance(body, dict) else body
        return {"api": {"method": "POST", "endpoint": "/generate"}, "payload": payload}
    api = {"method": request["method"], "endpoint": request["path"]}
    return {"api": api, "payload": request["body"] or None}


@pytest.mark.parametrize(("stem", "record"), recordings())
async def test_a_recording_is_a_success_or_its_failure(
    stem: str, record: dict[str, Any], tmp_path: Path
) -> None:
    sink = Collected()
    async with fake_classic(make_checkout(tmp_path), fake_of(stem, record)) as it:
        if stem.startswith(NO_MODEL):
            it.engine.model_name = None
        if stem in ERRORS:
            error, says = ERRORS[stem]
            with pytest.raises(error) as caught:
                await it.answerer.answer(parse_job(job_of(record["request"])), sink, Progress())
            assert says in str(caught.value)
            return
        answer = await it.answerer.answer(parse_job(job_of(record["request"])), sink, Progress())
    expected = OTHERWISE.get(stem, record["response"].get("body"))
    if "frames" in record["response"]:
        texts = [frame.get("text", "") for frame in record["response"]["frames"]]
        expected = {"results": [{"text": "".join(texts)}]}
        assert {"event": "stream_end"} == sink.chunks[-1]
    if stem == "err_v1_completions":
        # It has no such route; the worker translates it.
        expected, answer = "text_completion", answer["object"]
    assert expected == answer
