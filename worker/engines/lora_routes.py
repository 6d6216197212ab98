"""The LoRA routes of today's textgen, in front of every engine.

Shapes from https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/api/script.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from worker.answerer import Answerer
from worker.changes import Changes
from worker.engines.loras import read_names
from worker.errors import EngineRefused, InvalidJob, UnknownRoute
from worker.job import Request
from worker.progress import Progress
from worker.slots import Slots
from worker.stream import Sink

PREFIX = "/v1/internal/lora/"
METHODS = {"list": "GET", "load": "POST", "unload": "POST"}


class Host(Protocol):
    """An engine that takes LoRAs. Every call may raise a JobError."""

    async def list_loras(self) -> list[str]:
        """Names of the LoRAs that can be loaded."""
        ...

    async def load_loras(self, names: Sequence[str]) -> None:
        """Have these LoRAs and no others on the loaded model, known to work when it returns."""
        ...


class LoraRoutes:
    """Answers the LoRA routes itself and passes every other request on."""

    def __init__(self, others: Answerer, slots: Slots, host: Host, *, admin: str) -> None:
        """admin: MODEL_ADMIN; only `all` lets jobs change the LoRAs."""
        self._others = others
        self._changes = Changes(slots)
        self._host = host
        self._admin = admin

    async def answer(self, request: Request, sink: Sink, progress: Progress) -> Any:
        """The output of one request. Raises JobError."""
        if not request.path.startswith(PREFIX):
            return await self._others.answer(request, sink, progress)
        action = request.path.removeprefix(PREFIX)
        wanted = METHODS.get(action)
        if wanted is None:
            raise UnknownRoute(f"there is no route {request.path[:80]}; send list, load or unload")
        if request.method != wanted:
            raise InvalidJob(f"{request.path} takes {wanted}, not {request.method}")
        if action == "list":
            return {"lora_names": await self._host.list_loras()}
        await self._change(request, action)
        return "OK"

    async def _change(self, request: Request, action: str) -> None:
        """Load or unload once nobody uses the model."""
        if self._admin != "all":
            raise EngineRefused(
                f"{request.path} is switched off on this worker (MODEL_ADMIN)", status=403
            )
        if action == "load" and "lora_names" not in request.body:
            raise InvalidJob("lora_names is missing; send a list of names")
        names = read_names(request.body.get("lora_names"), "lora_names") if action == "load" else []
        await self._changes.run(lambda: self._host.load_loras(names))
