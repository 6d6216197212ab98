"""The blocking API and the OpenAI routes on the real embedded engine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.ports import free_port
from tests.upstream import LOAD_ARGS
from worker.blocking import BlockingApi
from worker.client import EngineClient
from worker.engines.embedded import EmbeddedEngine
from worker.engines.llama_backend import LlamaBackend
from worker.errors import EngineRefused
from worker.job import Request
from worker.models import catalog
from worker.progress import Progress
from worker.runner import Runner
from worker.service import make_runner, make_supervisor
from worker.settings import Settings
from worker.slots import Slots
from worker.stream import Channel, Discard

MODEL = "SmolLM2-135M-Instruct.Q4_1"
GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 12}
PROMPT = "The capital of France is"

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Worker:
    """A runner on a live engine, and the engine's own view of its slots."""

    def __init__(self, runner: Runner, client: EngineClient, engine: EmbeddedEngine) -> None:
        self.runner = runner
        self.client = client
        self.engine = engine

    async def job(self, job_input: Any) -> dict[str, Any]:
        outcome = await self.runner.run({"id": "j", "input": job_input}, Discard())
        body: dict[str, Any] = json.loads(outcome.body)
        return body

    async def post(self, endpoint: str, **payload: Any) -> Any:
        api = {"method": "POST", "endpoint": endpoint}
        body = await self.job({"api": api, "payload": payload})
        assert "error" not in body, body
        return body["output"]

    async def error(self, endpoint: str, **payload: Any) -> str:
        api = {"method": "POST", "endpoint": endpoint}
        body = await self.job({"api": api, "payload": payload})
        return str(body["error"])

    async def text(self, **payload: Any) -> str:
        output = await self.post("/generate", **{"prompt": PROMPT, **GREEDY, **payload})
        text: str = output["results"][0]["text"]
        return text

    async def chat(self, **payload: Any) -> Any:
        output = await self.post("/chat", **{**GREEDY, **payload})
        return output["results"][0]["history"]

    async def busy(self) -> int:
        slots = await self.client.json("GET", "/slots")
        return sum(slot["is_processing"] for slot in slots)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    characters = tmp_path_factory.mktemp("characters")
    (characters / "Bob.yaml").write_text("name: Bob\ncontext: Bob only says moo.\n")
    settings = Settings(engine_port=free_port(), characters_dir=characters)
    engine = EmbeddedEngine(settings, catalog(settings), {}, log=lambda line: None)
    engine.spawn()
    client = EngineClient(settings.engine_port)
    try:
        await engine.wait_ready(client.session)
        supervisor = make_supervisor(settings, engine, client)
        supervisor.ready.set()
        yield Worker(make_runner(settings, engine, client, supervisor), client, engine)
    finally:
        await engine.stop(0)
        await client.close()


async def test_get_model_is_its_name(worker: Worker) -> None:
    body = await worker.job({"api": {"method": "GET", "endpoint": "model"}})

    assert {"output": {"result": MODEL}} == body


async def test_model_without_an_action_is_its_name(worker: Worker) -> None:
    assert {"result": MODEL} == await worker.post("/model")


async def test_info_has_the_seeds_shape_and_only_its_keys(worker: Worker) -> None:
    result = (await worker.post("/model", action="info"))["result"]

    seed = json.loads((Path(__file__).parent / "data" / "model_info.json").read_text())["result"]
    unknown = {
        part: set(result[part]) - set(seed[part]) for part in ("shared.args", "shared.settings")
    }
    assert (set(seed), {"shared.args": set(), "shared.settings": set()}) == (set(result), unknown)


async def test_info_says_what_is_true(worker: Worker) -> None:
    args = (await worker.post("/model", action="info"))["result"]["shared.args"]

    assert ("llama.cpp", MODEL, 2048) == (args["loader"], args["model"], args["n_ctx"])


async def test_list_begins_with_none(worker: Worker) -> None:
    assert {"result": ["None", MODEL]} == await worker.post("/model", action="list")


async def test_unload_and_load_really_do(worker: Worker) -> None:
    unloaded = await worker.post("/model", action="unload")
    refused = await worker.error("/generate", prompt="x")
    name = await worker.post("/model")
    loaded = await worker.post("/model", action="load", model_name=MODEL)
    text = await worker.text(max_new_tokens=1)

    assert (None, None, MODEL, " Paris") == (
        unloaded["result"]["model_name"],
        name["result"],
        loaded["result"]["model_name"],
        text,
    )
    assert "no model is loaded" in refused


async def test_load_takes_the_classics_args_and_keeps_to_those_that_mean_something(
    worker: Worker,
) -> None:
    args = {**LOAD_ARGS, "n_ctx": 512, "threads": 1}
    loaded = await worker.post("/model", action="load", model_name=MODEL, args=args)
    again = await worker.post("/model", action="load", model_name=MODEL)

    told = [answer["result"]["shared.args"] for answer in (loaded, again)]
    assert [("llama.cpp", 512, 1), ("llama.cpp", 2048, told[1]["threads"])] == [
        (said["loader"], said["n_ctx"], said["threads"]) for said in told
    ]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"action": "fly"}, "there is no action 'fly'"),
        ({"action": "load"}, "model_name is missing"),
        ({"action": "load", "model_name": "x"}, f"there are: {MODEL}"),
        ({"action": "load", "model_name": "../x"}, f"there are: {MODEL}"),
        ({"action": "load", "model_name": MODEL, "args": {"evil": 1}}, "args can't set evil"),
        (
            {"action": "load", "model_name": MODEL, "args": {"trust_remote_code": True}},
            "args.trust_remote_code is refused",
        ),
        ({"action": "load", "model_name": MODEL, "args": {"n_ctx": "x"}}, "args.n_ctx is 'x'"),
        ({"action": "load", "model_name": MODEL, "args": 1}, "args is 1; it must be an object"),
    ],
)
async def test_a_wrong_model_request_changes_nothing(
    worker: Worker, payload: dict[str, Any], says: str
) -> None:
    error = await worker.error("/model", **payload)

    assert (True, {"result": MODEL}) == (says in error, await worker.post("/model"))


async def test_models_are_not_changed_by_jobs_where_the_operator_forbids_it(
    worker: Worker,
) -> None:
    api = BlockingApi(LlamaBackend(worker.client, worker.engine), Slots(1), None, may_load=False)
    request = Request("POST", "/model", {"action": "unload"}, blocking=True, stream=False)
    with pytest.raises(EngineRefused, match="MODEL_ADMIN"):
        await api.answer(request, Discard(), Progress())

    assert {"result": MODEL} == await worker.post("/model")


async def test_generate_goes_on_from_the_prompt(worker: Worker) -> None:
    assert (await worker.text()).startswith(" Paris")


async def test_tokens_are_counted(worker: Worker) -> None:
    assert {"results": [{"tokens": 5}]} == await worker.post("/token-count", prompt=PROMPT)


async def test_a_seed_makes_a_run_repeat(worker: Worker) -> None:
    sampling = {"do_sample": True, "temperature": 1.5}
    first = await worker.text(seed=7, **sampling)
    other = await worker.text(seed=8, **sampling)
    again = await worker.text(seed=7, **sampling)

    assert (first, True) == (again, first != other)


async def test_a_stopping_string_ends_the_text_before_it(worker: Worker) -> None:
    whole = await worker.text()
    stop = whole[4:8]

    assert whole[: whole.index(stop)] == await worker.text(stopping_strings=[stop])


async def test_the_beginning_of_a_stopping_string_is_trimmed_at_the_end(worker: Worker) -> None:
    whole = await worker.text()

    assert whole[:-2] == await worker.text(stopping_strings=[whole[-2:] + "never comes"])


async def test_a_grammar_is_kept_to(worker: Worker) -> None:
    assert (await worker.text(grammar_string='root ::= "yes" | "no"')) in ("yes", "no")


async def test_a_banned_token_does_not_come(worker: Worker) -> None:
    tokens = await worker.client.json("POST", "/tokenize", {"content": " Paris"})
    banned = str(tokens["tokens"][0])

    assert not (await worker.text(custom_token_bans=banned)).startswith(" Paris")


async def test_a_repetition_penalty_changes_the_text(worker: Worker) -> None:
    assert await worker.text() != await worker.text(repetition_penalty=2.0)


async def test_a_banned_end_of_text_goes_on_to_the_limit(worker: Worker) -> None:
    prompt = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    text = await worker.text(prompt=prompt, ban_eos_token=True, max_new_tokens=40)
    tokens = await worker.post("/token-count", prompt=text)

    assert tokens["results"][0]["tokens"] >= 30


async def test_a_long_prompt_is_cut_on_its_left(worker: Worker) -> None:
    text = await worker.text(prompt="word " * 200 + PROMPT, truncation_length=17)

    assert await worker.text() == text


async def test_a_prompt_longer_than_the_context_names_both_lengths(worker: Worker) -> None:
    prompt = "word " * 3000
    error = await worker.error("/generate", prompt=prompt, truncation_length=9000)

    assert ("3001 tokens" in error, "holds 2048" in error) == (True, True)


async def test_an_openai_prompt_longer_than_the_context_names_both_lengths(worker: Worker) -> None:
    error = await worker.error("/v1/completions", prompt="word " * 3000)

    assert ("3001 tokens" in error, "holds 2048" in error) == (True, True)


async def test_a_chat_answers_and_keeps_its_history(worker: Worker) -> None:
    first = await worker.chat(user_input="Hello <b>", mode="instruct")
    second = await worker.chat(user_input="Again", mode="instruct", history=first)

    turns = [pair[0] for pair in second["internal"]]
    assert (["Hello <b>", "Again"], "Hello &lt;b&gt;", True) == (
        turns,
        second["visible"][0][0],
        all(pair[1] for pair in second["internal"]),
    )


@pytest.mark.parametrize("mode", ["chat", "instruct", "chat-instruct"])
@pytest.mark.parametrize("template", [None, "Alpaca"])
async def test_every_mode_answers(worker: Worker, mode: str, template: str | None) -> None:
    history = await worker.chat(user_input="Hi", mode=mode, instruction_template=template)

    assert (1, "Hi") == (len(history["internal"]), history["internal"][0][0])


async def test_regenerate_answers_the_last_turn_again(worker: Worker) -> None:
    first = await worker.chat(user_input="Hello")

    assert first == await worker.chat(user_input="ignored", regenerate=True, history=first)


@pytest.mark.parametrize("mode", ["chat", "instruct"])
async def test_continue_goes_on_with_the_last_reply(worker: Worker, mode: str) -> None:
    begun = [["What is the capital of France?", "The capital of France is"]]
    history = {"internal": begun, "visible": begun}
    result = await worker.chat(user_input="", _continue=True, history=history, mode=mode)

    assert result["internal"][0][1].startswith("The capital of France is Paris")


async def test_a_character_of_the_operators_folder_is_used(worker: Worker) -> None:
    history = await worker.chat(user_input="Hi", character="Bob")

    assert "Hi" == history["internal"][0][0]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({}, "user_input is missing"),
        ({"user_input": "x", "mode": "sing"}, "mode is 'sing'"),
        ({"user_input": "x", "character": "Nobody"}, "character 'Nobody' does not exist"),
        ({"user_input": "x", "character": "../../etc/passwd"}, "does not exist"),
        ({"user_input": "x", "instruction_template": "Nothing"}, "'Nothing' does not exist"),
        ({"user_input": "x", "history": 7}, "history must be"),
    ],
)
async def test_a_wrong_chat_is_refused(worker: Worker, payload: dict[str, Any], says: str) -> None:
    assert says in await worker.error("/chat", **payload)


async def test_a_plain_openai_answer_is_what_the_engine_gives_itself(worker: Worker) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}
    path = "/v1/chat/completions"
    ours = await worker.post(path, **body, logprobs=True, top_logprobs=1)
    theirs = await worker.client.json(
        "POST", path, {**body, "logprobs": True, "top_logprobs": 1, "stream": False}
    )

    def comparable(answer: dict[str, Any]) -> dict[str, Any]:
        usage = {key: answer["usage"][key] for key in ("prompt_tokens", "completion_tokens")}
        kept = {key: answer[key] for key in ("object", "model", "choices", "system_fingerprint")}
        return {**kept, "usage": usage, "keys": sorted(answer)}

    assert comparable(theirs) == comparable(ours)


async def test_a_plain_text_completion_is_what_the_engine_gives_itself(worker: Worker) -> None:
    body = {"prompt": ["The sky is", "Grass is"], "max_tokens": 4, "temperature": 0}
    ours = await worker.post("/v1/completions", **body)
    theirs = await worker.client.json("POST", "/v1/completions", {**body, "stream": False})

    assert (theirs["choices"], sorted(theirs)) == (ours["choices"], sorted(ours))


async def test_models_are_listed_without_a_path(worker: Worker) -> None:
    body = await worker.job({"openai_route": "/v1/models"})

    assert ([MODEL], False) == (
        [model["id"] for model in body["output"]["data"]],
        "/" in json.dumps(body["output"]["data"]),
    )


async def test_a_streamed_generation_gives_frames_and_the_same_result(worker: Worker) -> None:
    api = {"method": "POST", "endpoint": "/generate"}
    payload = {"prompt": PROMPT, **GREEDY, "stream": True}
    channel = Channel(worker.runner.merger())
    outcome = await worker.runner.run(
        {"id": "j", "input": {"api": api, "payload": payload}}, channel
    )
    channel.close()
    frames = await channel.take()

    text = json.loads(outcome.body)["output"]["results"][0]["text"]
    assert (text, "stream_end", [0, 1]) == (
        frames[0]["text"],
        frames[-1]["event"],
        [frame["message_num"] for frame in frames],
    )


LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "ban_eos_token": True}


async def until_busy(worker: Worker, count: int) -> None:
    async def poll() -> None:
        while await worker.busy() != count:  # noqa: ASYNC110  # the engine has no event to wait for
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 20)


async def test_stop_stream_ends_what_runs_with_its_text(worker: Worker) -> None:
    running = asyncio.create_task(worker.text(**LONG, do_sample=True))
    await until_busy(worker, 1)
    await asyncio.sleep(0.3)
    answer = await worker.post("/stop-stream")
    text = await asyncio.wait_for(running, 5)

    assert ({"results": "success"}, True) == (answer, 0 < len(text) < 1000)


async def test_a_cancelled_job_frees_its_slot_within_a_tenth_of_a_second(worker: Worker) -> None:
    running = asyncio.create_task(worker.text(**LONG))
    others = asyncio.create_task(worker.text(prompt=PROMPT, max_new_tokens=60, ban_eos_token=True))
    await until_busy(worker, 2)
    running.cancel()
    started = time.monotonic()
    await until_busy(worker, 1)
    seconds = time.monotonic() - started

    assert await others
    assert seconds < 0.3  # 0.1 s on an idle machine; this one may be busy with other tests


async def test_as_many_generations_as_slots_run_at_once(worker: Worker) -> None:
    jobs = [asyncio.create_task(worker.text(**LONG)) for _ in range(6)]
    await until_busy(worker, 4)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    await until_busy(worker, 0)


async def test_counting_tokens_does_not_wait_behind_generations(worker: Worker) -> None:
    jobs = [asyncio.create_task(worker.text(**LONG)) for _ in range(6)]
    await until_busy(worker, 4)
    counted = await asyncio.wait_for(worker.post("/token-count", prompt=PROMPT), 5)
    still_busy = await worker.busy()
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)

    assert ({"results": [{"tokens": 5}]}, 4) == (counted, still_busy)
