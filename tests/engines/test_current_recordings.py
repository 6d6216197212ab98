"""Every recorded answer of today's textgen ends as a success or as the one right failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.test_classic_recordings import recordings as classic_recordings
from tests.fake_engine import Call, fake_engine
from worker.client import EngineClient
from worker.engines.current_launch import Launch
from worker.engines.lora_routes import METHODS, PREFIX, LoraRoutes
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
from worker.engines.textgen_load import LoadedWith
from worker.engines.textgen_routes import ROUTES
from worker.engines.textgen_state import State
from worker.engines.webui import Checkout, Generation
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    EngineStartFailed,
    InvalidJob,
    JobError,
    UnknownRoute,
)
from worker.events import EventDecoder
from worker.job import parse_job
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

USER_DATA = Path("/srv/webui")
LOADS = ("/v1/internal/model/load",)
CONTRACT = Path(__file__).parent.parent / "contract"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
LOADED = State(MODEL, "llama.cpp", (), 8192, None, None, "", True, 0)
# Recorded in a state of the engine that the file's name tells.
NO_MODEL = ("nomodel_", "badmodel_", "post_completions_after_failed_load")
# The worker refuses these itself, before the engine could.
OWN_REFUSALS: Mapping[str, tuple[type[JobError], str]] = {
    "err_missing_prompt": (InvalidJob, "prompt is missing"),
    "err_empty_body": (InvalidJob, "prompt is missing"),
    "err_method": (InvalidJob, "takes POST, not GET"),
    "err_root": (InvalidJob, "the endpoint is missing"),
    "err_unknown_path": (UnknownRoute, "there is no endpoint"),
    "err_unknown_path_post": (UnknownRoute, "no route"),
    "err_malformed_json": (InvalidJob, "payload must be an object"),
    "err_no_content_type": (InvalidJob, "payload must be an object"),
    "err_text_content_type": (InvalidJob, "payload must be an object"),
    "listen_cors_foreign": (InvalidJob, '"GET" or "POST"'),
    "options_cors_foreign": (InvalidJob, '"GET" or "POST"'),
    "options_cors_local": (InvalidJob, '"GET" or "POST"'),
    "post_lora_load_unknown": (UnknownRoute, "there is no LoRA 'no-such-lora'"),
    "nomodel_post_lora_load_unknown": (EngineDown, "no model is loaded"),
    "post_model_load_bad_arg": (InvalidJob, "args can't set no_such_arg, trust_remote_code"),
    "post_model_load_missing_name": (InvalidJob, "send model_name"),
}
# Refused, or answered "OK" with nothing loaded; the log tells why.
FAILED_LOADS = (
    "post_model_load_missing_with_loader",
    "childdead_model_load",
    "post_model_load_unknown",
    "post_model_load_bad_arg_value",
)
SILENT_FAILURES = ("post_completions_context_overflow", "post_chat_context_overflow")
# What is no request: below, and in test_recorded_behaviours and test_recorded_lives.
ELSEWHERE = {
    "legacy": ("behaviour_", "ws_disconnect"),
    "modern": ("behaviour_", "openapi_paths", "sse_ping_raw"),
}


class Host:
    """The state of an engine that a test chose."""

    decode_path = "/decode"
    extra_flags_path = "/extra-flags"

    def __init__(self, state: State, user_data: Path = USER_DATA) -> None:
        checkout = Checkout(user_data, Generation.CURRENT, {})
        self.state = state
        self.loaded_with = LoadedWith()
        self.settings = Settings(model_admin="all")
        self.launch = Launch(
            Path("python"), checkout, user_data, user_data, MODEL, "llama.cpp", 1, [], []
        )

    async def refresh(self) -> State:
        return self.state

    def take(self, call: Call, *, fails: bool) -> None:
        """Have the state that follows from a request for a change."""
        if call.path == "/v1/internal/model/unload" or (call.path in LOADS and fails):
            self.state = replace(self.state, model=None, child_exit=None)
        elif call.path in LOADS:
            self.state = replace(self.state, model=call.body["model_name"], child_exit=None)

    async def info(self) -> Mapping[str, Any]:
        return {}

    async def load_fault(self) -> str:
        return "the model file is broken"


class NoSink:
    async def put(self, event: Any, size: int) -> None:
        assert event


def recordings() -> list[Any]:
    found = []
    for file in sorted(CONTRACT.glob("modern*/*.json")):
        record = json.loads(file.read_text("utf-8"))
        if not file.stem.startswith(ELSEWHERE["modern"]):
            found.append(pytest.param(file.stem, record, id=f"{file.parent.name}-{file.stem}"))
    return found


def job_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The job that makes the recorded request."""
    api = {"method": request["method"], "endpoint": request["path"]}
    return {"api": api, "payload": request.get("body")}


def state_for(name: str) -> State:
    if name.startswith(NO_MODEL):
        return replace(LOADED, model=None)
    if name.startswith("childdead_") and not name.endswith("after_load"):
        return replace(LOADED, model=None, child_exit=-9)
    return LOADED


async def replay(name: str, record: Any, user_data: Path = USER_DATA) -> Any:
    """Answer as recorded, and run the recorded request as a job."""
    wanted, answer = record["request"], record["response"]
    host = Host(state_for(name), user_data)

    async def script(call: Call) -> None:
        if call.path == wanted["path"]:
            body = answer["body"]
            kind = (answer.get("headers") or {}).get("content-type") or "application/json"
            raw = body.encode() if isinstance(body, str) and "json" not in kind else body
            host.take(call, fails=name in FAILED_LOADS)
            await call.answer(raw, status=answer["status"] or 200, kind=kind)
        elif call.path == "/v1/internal/model/list":
            named = (wanted.get("body") or {}).get("model_name")
            await call.answer({"model_names": [MODEL, named or MODEL]})
        else:
            host.take(call, fails=False)
            await call.answer("OK")

    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        slots = Slots(1)
        backend = TextgenBackend(client, host)
        others = TextgenForwarder(client, slots, backend, host)
        answerer = LoraRoutes(others, slots, backend.models, admin="all")
        try:
            return await answerer.answer(parse_job(job_of(wanted)), NoSink(), Progress())
        finally:
            assert slots.idle
            await client.close()


def is_stream(record: Any) -> bool:
    return bool((record["request"].get("body") or {}).get("stream"))


def expected_error(name: str, record: Any) -> tuple[tuple[type[JobError], ...], str] | None:
    """The errors that a recording may end as, and what they say; None for a success."""
    status = record["response"]["status"]
    if name in OWN_REFUSALS:
        error, says = OWN_REFUSALS[name]
        return (error,), says
    if name in SILENT_FAILURES:
        return (InvalidJob,), "the context holds"
    if name in FAILED_LOADS:
        return (EngineStartFailed,), "could not be loaded: the model file is broken"
    # A stream without a model breaks off after its status 200.
    if status == 500 or (state_for(name).model is None and is_stream(record)):
        down = state_for(name).model is None
        return (
            ((EngineDown,), "llama-server" if state_for(name).child_exit else "no model")
            if (down)
            else ((EngineBroken,), "the engine failed inside")
        )
    return None if status == 200 else ((EngineRefused, InvalidJob, UnknownRoute), "")


@pytest.mark.parametrize(("name", "record"), recordings())
async def test_a_recorded_answer_ends_as_it_must(name: str, record: Any, tmp_path: Path) -> None:
    (tmp_path / "instruction-templates").mkdir()
    (tmp_path / "instruction-templates" / "Alpaca.yaml").touch()
    expected = expected_error(name, record)
    if expected is None:
        recorded = record["response"]["body"]
        result = await replay(name, record, tmp_path)
        if record["request"]["path"].startswith("/v1/") and not is_stream(record):
            assert recorded == result
        else:
            assert result["choices"][0]["finish_reason"]
    else:
        errors, says = expected
        with pytest.raises(errors) as caught:
            await replay(name, record, tmp_path)
        assert says in str(caught.value)
        assert 10 < len(str(caught.value)) < 400


def test_every_recorded_route_is_open_or_closed_on_purpose() -> None:
    """modern/openapi_paths: what the engine itself said that it has."""
    record = json.loads((CONTRACT / "modern/openapi_paths.json").read_text("utf-8"))
    there = {
        (method.upper(), path)
        for path, methods in record["paths"].items()
        for method in methods
        if method in ("get", "post")
    }
    loras = {(method, PREFIX + action) for action, method in METHODS.items()}
    known = {*ROUTES, *loras, ("GET", "/v1/models/{model}")}

    assert there == known


def test_a_ping_on_the_wire_is_no_event() -> None:
    """modern/sse_ping_raw.txt: a comment every 15 seconds while the engine reads a long prompt."""
    raw = (CONTRACT / "modern/sse_ping_raw.txt").read_bytes()
    events = EventDecoder().feed(raw)

    assert 3 == raw.count(b": ping - ")
    assert raw.count(b"data: ") == len(events)
    assert not [event for event in events if "ping" in event.data]


def test_every_recording_is_a_case() -> None:
    """Whatever is in the contract's folders is replayed, here or where this names it."""
    replayed = {str(case.id) for case in (*recordings(), *classic_recordings())}
    files = [file for file in CONTRACT.glob("*/*") if file.suffix in (".json", ".txt")]
    missing = [
        f"{file.parent.name}-{file.stem}"
        for file in files
        if f"{file.parent.name}-{file.stem}" not in replayed
        and not file.stem.startswith(ELSEWHERE.get(file.parent.name, ()))
    ]

    assert ([], 300) == (missing, len(files))
