"""Models and LoRAs on today's textgen: listed, loaded and unloaded, and known to be loaded.

Textgen answers "OK" to loads that loaded nothing, and names LoRAs that have no effect. Facts from
https://github.com/oobabooga/text-generation-webui, textgen v4.9: modules/api/models.py,
modules/models.py, modules/LoRA.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.client import EngineClient
from worker.engines.current_launch import LLAMA_CPP, LORA_LOADERS, loader_of, with_loras
from worker.engines.loras import take_names
from worker.engines.textgen_host import Host
from worker.engines.textgen_load import LoadedWith, load_args, without_the_classics
from worker.errors import (
    EngineBroken,
    EngineDown,
    EngineRefused,
    EngineStartFailed,
    InvalidJob,
    UnknownRoute,
)
from worker.joblog import logger


class TextgenModels:
    """Changes what is loaded; the caller has the engine to itself."""

    def __init__(self, client: EngineClient, host: Host) -> None:
        """Speak to the engine through the client; the host tells what is loaded."""
        self._client = client
        self._host = host

    async def list_models(self) -> list[str]:
        """Names of the models that can be loaded."""
        return await self._names("/v1/internal/model/list", "model_names")

    async def list_loras(self) -> list[str]:
        """Names of the LoRAs that can be loaded with the loader of the loaded model."""
        gguf = self._host.state.loader == LLAMA_CPP
        return sorted(self._host.launch.loras.known(gguf=gguf))

    async def load(
        self,
        name: str,
        args: Mapping[str, Any],
        template: Mapping[str, str] | None = None,
    ) -> None:
        """Load a model, ready when it returns: the engine's "OK" alone says nothing.

        args.lora: LoRAs for it, in place of LORA's. template: as `read_template` gives it.
        Raises UnknownRoute for a name that there is not and InvalidJob for args that may not be
        set (nothing changes then), or EngineStartFailed: no model is loaded after that.
        """
        try:
            await self._load(name, args, template or {})
        except EngineStartFailed as error:
            raise EngineStartFailed(f"{error}; no model is loaded now") from error

    async def unload(self) -> None:
        """Unload the model; nothing happens when none is loaded."""
        await self._client.json("POST", "/v1/internal/model/unload", {})
        if (await self._host.refresh()).model is not None:
            raise EngineBroken("the engine did not unload the model; see the worker's log")

    async def load_loras(self, names: Sequence[str]) -> None:
        """Have these LoRAs and no others on the model; raises JobError.

        When it fails, the model is loaded as it was before: textgen may keep a LoRA then that it
        does not name.
        """
        state, was = self._host.state, self._host.loaded_with
        if state.model is None:
            raise EngineDown("no model is loaded; load one with /model, action load")
        self._lora_paths(names, state.loader)
        try:
            if state.loader == LLAMA_CPP:
                await self._load(state.model, {**was.args, "lora": list(names)}, was.template)
            else:
                await self._put_loras(names)
        except EngineStartFailed:
            await self.load(state.model, {**was.args, "lora": list(state.loras)}, was.template)
            raise

    async def _load(self, name: str, args: Mapping[str, Any], template: Mapping[str, str]) -> None:
        """See `load`."""
        names = await self.list_models()
        if name not in names:
            raise UnknownRoute(f"there is no such model; there are: {', '.join(names)[:400]}")
        settings, launch = self._host.settings, self._host.launch
        loader = loader_of(launch.model_dir / name, settings.engine_loader)
        loras, others = take_names(args, launch.loras.start if name == launch.model else ())
        if not settings.engine_load_any_args:
            others, ignored = without_the_classics(others)
            if ignored:
                logger.warning("args without effect on this engine: %s", ", ".join(ignored))
        checked = load_args(others, launch, loader, allow_any=settings.engine_load_any_args)
        body = {"model_name": name, "args": checked, **template}
        paths = self._lora_paths(loras, loader)
        try:
            await asyncio.wait_for(
                self._loaded(name, body, loader, paths), timeout=settings.engine_start_timeout
            )
        except asyncio.TimeoutError:
            raise EngineStartFailed(
                f"the model {name} was not loaded within {settings.engine_start_timeout:g} seconds"
            ) from None
        self._host.loaded_with = LoadedWith(others, template)

    def _lora_paths(self, names: Sequence[str], loader: str) -> list[Path]:
        """Where these LoRAs are; raises UnknownRoute, or InvalidJob for a loader without any."""
        if names and loader not in LORA_LOADERS:
            raise InvalidJob(
                f"LoRAs can't be loaded with {loader}; {' and '.join(LORA_LOADERS)} take them"
            )
        return self._host.launch.loras.paths(names, gguf=loader == LLAMA_CPP)

    async def _loaded(
        self, name: str, body: Mapping[str, Any], loader: str, loras: Sequence[Path]
    ) -> None:
        """Load, and believe it only when a token came."""
        if loader == LLAMA_CPP:
            flags = with_loras(self._host.launch.extra_flags, loras)
            await self._client.json("POST", self._host.extra_flags_path, {"extra_flags": flags})
        if not await self._ok("/v1/internal/model/load", body) or self._host.state.model != name:
            raise EngineStartFailed(
                f"the model {Path(name).name} could not be loaded: {await self._host.load_fault()}"
            )
        try:
            if loras and loader != LLAMA_CPP:
                await self._put_loras([path.name for path in loras])
        except EngineStartFailed:
            await self.unload()
            raise
        await self._first_token()

    async def _put_loras(self, names: Sequence[str]) -> None:
        """Have the Transformers loader put LoRAs on the loaded model.

        All others are taken off first: it would name both, and add nothing.
        """
        done = await self._ok("/v1/internal/lora/unload", {})
        if done and names:
            done = await self._ok("/v1/internal/lora/load", {"lora_names": list(names)})
        if not done or list(self._host.state.loras) != list(names):
            raise EngineStartFailed(
                f"the LoRAs could not be loaded: {await self._host.load_fault()}"
            )
        await self._first_token()

    async def _first_token(self) -> None:
        """Generate one token; raises JobError."""
        first = {"prompt": "1", "max_tokens": 1, "temperature": 0, "stream": False}
        await self._client.json("POST", "/v1/completions", first)

    async def _ok(self, path: str, body: Mapping[str, Any]) -> bool:
        """Ask for a change; whether the engine did not refuse it. What is loaded is known then."""
        try:
            await self._client.json("POST", path, body)
        except EngineRefused as error:
            if error.status == 401:
                raise
            return False
        finally:
            await self._host.refresh()
        return True

    async def _names(self, path: str, key: str) -> list[str]:
        """A list of names that the engine gives."""
        answer = await self._client.json("GET", path)
        names = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(names, list):
            raise EngineBroken("the engine gave no list of names; try again")
        return [str(name) for name in names]
