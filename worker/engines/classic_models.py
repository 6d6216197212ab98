"""The model of a classic: told of, listed, loaded and unloaded, and known to be loaded.

The classic says 200 to a load that failed and goes on to name the model. Facts from
text-generation-webui@snapshot-2023-11-05, extensions/api/blocking_api.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from worker.changes import Changes
from worker.client import EngineClient
from worker.contract.fields import field, mapping, text
from worker.engines.classic_errors import NO_MODEL, load_error
from worker.engines.classic_model import load_args, public_info
from worker.engines.loras import Loras, take_names
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    EngineStartFailed,
    InvalidJob,
    JobError,
    UnknownRoute,
)
from worker.settings import Settings
from worker.slots import Slots

_PATH = "/api/v1/model"


class Loaded(Protocol):
    """Knows which model is ready."""

    @property
    def model_name(self) -> str | None:
        """The model that is loaded and ready, None when none is."""
        ...

    @property
    def loras(self) -> Loras:
        """The LoRAs that there are."""
        ...

    def start_loras(self, name: str) -> Sequence[str]:
        """The LoRAs that a model has unless a load says otherwise."""
        ...

    def set_model(self, name: str | None) -> None:
        """Take note of a load or unload."""
        ...


class ClassicModels:
    """Answers /model. warm_up: generates one token, or raises a JobError."""

    def __init__(
        self,
        client: EngineClient,
        slots: Slots,
        *,
        engine: Loaded,
        warm_up: Callable[[], Awaitable[None]],
        settings: Settings,
    ) -> None:
        self._client = client
        self._changes = Changes(slots)
        self._engine = engine
        self._warm_up = warm_up
        self._settings = settings
        # The classic keeps the args of a load that failed: what they were before.
        self._undo: dict[str, Any] = {}

    @property
    def name(self) -> str | None:
        """The loaded model's name, None without one."""
        return self._engine.model_name

    def need(self) -> str:
        """The loaded model's name; EngineDown when there is none."""
        if self.name is None:
            raise EngineDown(NO_MODEL)
        return self.name

    async def answer(self, body: Mapping[str, Any]) -> Any:
        """The model's name, or what `action` asks for. Raises JobError."""
        action = field(body, text, "", "action")
        if action == "":
            return {"result": self.name}
        if action == "info":
            return {"result": await self.info()}
        if action == "list":
            return {"result": ["None", *await self._names()]}
        if action == "load":
            return {"result": await self._load(body)}
        if action == "unload":
            self._check_admin()
            return {"result": await self._changes.run(self._unload)}
        raise UnknownRoute(
            f"there is no action {str(action)[:50]!r}; send info, list, load, unload or no action"
        )

    async def info(self) -> dict[str, Any]:
        """What the classic tells of itself, fit for callers."""
        return self._public(await self._post({"action": "info"}))

    async def list_loras(self) -> list[str]:
        """Names of the LoRAs that can be loaded."""
        return sorted(self._engine.loras.known(gguf=False))

    async def load_loras(self, names: Sequence[str]) -> None:
        """Load the model again, with these LoRAs and no others; the caller has the engine.

        Raises UnknownRoute or EngineDown, or EngineStartFailed: it has those of before then.
        """
        model = self.need()
        self._engine.loras.paths(names, gguf=False)
        before = (await self.info()).get("lora_names") or []
        try:
            await self._load_known(model, {"lora": list(names)})
        except EngineStartFailed:
            await self._load_known(model, {"lora": before})
            raise

    def _public(self, answer: Any) -> dict[str, Any]:
        """The result of info, load or unload."""
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict):
            raise EngineBroken("the engine told nothing of itself; try again")
        return {**public_info(result), "model_name": self.name}

    async def _load(self, body: Mapping[str, Any]) -> Any:
        """Check what is to be loaded, and load it."""
        self._check_admin()
        name, args = body.get("model_name"), field(body, mapping, {}, "args")
        if not isinstance(name, str) or not name:
            raise InvalidJob("model_name is missing; send one of the names that action list gives")
        loras, others = take_names(args, self._engine.start_loras(name))
        self._engine.loras.paths(loras, gguf=False)
        checked = load_args(
            others,
            any_key=self._settings.engine_load_any_args,
            trust_remote_code=self._settings.engine_trust_remote_code,
        )
        args = {**checked, "lora": loras}
        return await self._changes.run(lambda: self._load_known(name, args))

    async def _load_known(self, name: str, args: Mapping[str, Any]) -> Any:
        """Load a model that is listed; nothing changes when it is not."""
        names = await self._names()
        if name not in names:
            known = ", ".join(names)[:300] or "none"
            raise UnknownRoute(f"there is no model {name[:50]!r}; there are: {known}")
        before = (await self._post({"action": "info"}))["result"]["shared.args"]
        self._engine.set_model(None)
        try:
            answer = await self._load_now(name, {**self._undo, **args})
        except JobError:
            self._undo |= {key: before.get(key) for key in args if key not in self._undo}
            await self._forget()
            raise
        self._undo = {}
        self._engine.set_model(name)
        return self._public(answer)

    async def _load_now(self, name: str, args: Mapping[str, Any]) -> Any:
        """Load, and make sure of it by a token: it says 200 to what did not load, too."""
        body = {"action": "load", "model_name": name, "args": dict(args)}
        try:
            answer = await self._post(body)
        except EngineRefused as error:
            cause = load_error(_message(error.detail) or str(error))
            if args.get("lora"):
                name = f"{name} with {', '.join(args['lora'])}"
                cause = cause.replace("the model file is", "the model file or a LoRA is")
            raise EngineStartFailed(f"{name} could not be loaded: {cause}") from error
        try:
            await self._warm_up()
        except EngineBroken as broken:
            raise EngineStartFailed(f"{name} was loaded, but {broken}") from broken
        except EngineDown as down:
            raise EngineStartFailed(f"{name} could not be loaded; the log says why") from down
        if self._public(answer).get("lora_names") != args.get("lora", []):
            raise EngineStartFailed(f"{name} was loaded, but not its LoRAs; the log says why")
        return answer

    async def _forget(self) -> None:
        """Make the engine forget the name of a model that it has not loaded."""
        try:
            await self._post({"action": "unload"})
        except JobError:
            return

    async def _unload(self) -> Any:
        """Unload the model."""
        self._engine.set_model(None)
        return self._public(await self._post({"action": "unload"}))

    def _check_admin(self) -> None:
        if self._settings.model_admin == "off":
            raise EngineRefused(
                "loading and unloading is switched off on this worker (MODEL_ADMIN)", status=403
            )

    async def _names(self) -> list[str]:
        """The names of the models that there are."""
        answer = await self._post({"action": "list"})
        names = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(names, list):
            raise EngineBroken("the engine listed no models; try again")
        return [str(name) for name in names if name != "None"]

    async def _post(self, body: Mapping[str, Any]) -> Any:
        return await self._client.json("POST", _PATH, body)


def _message(answer: Any) -> str:
    """The text of the classic's {"error": {"message": repr}}, "" when it is not that."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message") or "") if isinstance(error, dict) else ""
