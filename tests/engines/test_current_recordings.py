"""Every recorded answer of today's textgen ends as a success or as the one right failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_engine import Call, fake_engine
from worker.client import EngineClient
from worker.engines.current_launch import Launch
from worker.engines.lora_routes import LoraRoutes
from worker.engines.textgen_backend import TextgenBackend
from worker.engines.textgen_forward import TextgenForwarder
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
from worker.job import Request
from worker.progress import Progress
from worker.settings import Settings
from worker.slots import Slots

CONTRACT = Path(__file__).parent.parent / "contract"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
LOADED = State(MODEL, "llama.cpp", (), 8192, None, None, "", True, 0)
# Recorded in a state of the engine that the file's name tells.
NO_MODEL = ("nomodel_", "badmodel_", "post_completions_after_failed_load")
# The worker refuses these itself, before the engine could.
OWN_REFUSALS: Mapping[str, type[JobError]] = {
    "err_missing_prompt": InvalidJob,
    "err_empty_body": InvalidJob,
    "err_method": InvalidJob,
    "err_root": UnknownRoute,
    "err_unknown_path": UnknownRoute,
    "err_unknown_path_post": UnknownRoute,
}
SILENT_FAILURES = ("post_completions_context_overflow", "post_chat_context_overflow")
CHANGES = ("load", "unload")


class Host:
    """The state of an engine that a test chose."""

    decode_path = "/decode"
    extra_flags_path = "/extra-flags"

    def __init__(self, state: State) -> None:
        folder = Path("/srv/webui")
        checkout = Checkout(folder, Generation.CURRENT, {})
        self.state = state
        self.load_args: Mapping[str, Any] = {}
        self.settings = Settings(model_admin="all")
        self.launch = Launch(
            Path("python"), checkout, folder, folder, MODEL, "llama.cpp", 1, [], []
        )

    async def refresh(self) -> State:
        return self.state

    async def info(self) -> Mapping[str, Any]:
        return {}

    def load_fault(self) -> str:
        return "the model file is broken"


class NoSink:
    async def put(self, event: Any, size: int) -> None:
        assert event


def recordings() -> list[Any]:
    found = []
    for file in sorted(CONTRACT.glob("modern*/*.json")):
        record = json.loads(file.read_text("utf-8"))
        request = record.get("request")
        usable = request and request["method"] in ("GET", "POST") and "response" in record
        if usable and isinstance(request.get("body"), (dict, type(None))):
            found.append(pytest.param(file.stem, record, id=f"{file.parent.name}-{file.stem}"))
    assert len(found) > 120
    return found


def state_for(name: str) -> State:
    if name.startswith(NO_MODEL):
        return replace(LOADED, model=None)
    if name.startswith("childdead_") and not name.endswith("after_load"):
        return replace(LOADED, model=None, child_exit=-9)
    return LOADED


async def replay(name: str, record: Any) -> Any:
    """Answer as recorded, and run the recorded request as a job."""
    wanted, answer = record["request"], record["response"]

    async def script(call: Call) -> None:
        if call.path == Host.extra_flags_path:
            await call.answer("OK")
        elif call.path == "/v1/internal/model/list":
            listed = {"model_names": [MODEL, "no-such-model.gguf", "nope"]}
            default = listed if wanted["path"] != call.path else answer["body"]
            status = answer["status"] if wanted["path"] == call.path else 200
            await call.answer(default, status=status)
        else:
            body = answer["body"]
            kind = (answer.get("headers") or {}).get("content-type") or "application/json"
            raw = body.encode() if isinstance(body, str) and "json" not in kind else body
            await call.answer(raw, status=answer["status"] or 200, kind=kind)

    async with fake_engine(script) as engine:
        client = EngineClient(engine.port)
        host = Host(state_for(name))
        slots = Slots(1)
        backend = TextgenBackend(client, host)
        others = TextgenForwarder(client, slots, backend, host)
        answerer = LoraRoutes(others, slots, backend, admin="all")
        body = wanted.get("body") or {}
        request = Request(wanted["method"], wanted["path"], body, False, bool(body.get("stream")))
        try:
            return await answerer.answer(request, NoSink(), Progress())
        finally:
            assert slots.idle
            await client.close()


def is_stream(record: Any) -> bool:
    return bool((record["request"].get("body") or {}).get("stream"))


def expected_error(name: str, record: Any) -> tuple[type[JobError], ...] | None:
    """The errors that a recording may end as; None for a success."""
    status, path = record["response"]["status"], record["request"]["path"]
    if name in OWN_REFUSALS:
        return (OWN_REFUSALS[name],)
    if name in SILENT_FAILURES:
        return (InvalidJob,)
    if path.endswith(CHANGES) and "/internal/" in path:
        return None if status == 200 else (EngineStartFailed, InvalidJob, UnknownRoute)
    # A stream without a model breaks off after its status 200.
    if status == 500 or (state_for(name).model is None and is_stream(record)):
        return (EngineDown,) if state_for(name).model is None else (EngineBroken,)
    return None if status == 200 else (EngineRefused, InvalidJob, UnknownRoute)


@pytest.mark.parametrize(
    ("name", "record"),
    [case for case in recordings() if not case.values[1]["request"]["path"].endswith(CHANGES)],
)
async def test_a_recorded_answer_ends_as_it_must(name: str, record: Any) -> None:
    expected = expected_error(name, record)
    if expected is None:
        recorded = record["response"]["body"]
        result = await replay(name, record)
        if record["request"]["path"].startswith("/v1/") and not is_stream(record):
            assert recorded == result
        else:
            assert result["choices"][0]["finish_reason"]
    else:
        with pytest.raises(expected) as caught:
            await replay(name, record)
        assert 10 < len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["post_model_load_missing_with_loader", "childdead_model_load"])
async def test_an_ok_for_a_load_is_not_believed_without_a_model(name: str) -> None:
    record = json.loads((CONTRACT / f"modern/{name}.json").read_text("utf-8"))
    assert "OK" == record["response"]["body"]
    with pytest.raises(EngineStartFailed, match="could not be loaded: the model file is broken"):
        await replay(
            "nomodel_" + name,
            {**record, "request": {**record["request"], "body": {"model_name": MODEL}}},
        )


async def test_a_refused_load_tells_the_cause_from_the_log() -> None:
    record = json.loads((CONTRACT / "modern/post_model_load_unknown.json").read_text("utf-8"))
    record["request"]["body"] = {"model_name": MODEL}
    with pytest.raises(EngineStartFailed, match="could not be loaded"):
        await replay("nomodel_load", record)
