"""The embedded engine's life: llama.cpp in a child process, one model at a time.

Loading another model is a new child on the same port (about 0.6 s for the bundled model).
`spawn` comes before anything heavy is imported, so asyncio and aiohttp are imported after it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.engine_log import LogLine
from worker.engines.embedded_child import HOST, explain, start_child
from worker.engines.embedded_launch import EmbeddedLaunch, Load
from worker.engines.llama_child import IMPORTED
from worker.errors import EngineDown, EngineStartFailed
from worker.latch import Latch
from worker.models import Catalog
from worker.process import EngineProcess
from worker.settings import Settings

if TYPE_CHECKING:
    import asyncio

    import aiohttp

    from worker.answerer import Answerer
    from worker.client import EngineClient
    from worker.slots import Slots

_TERM_SECONDS = 1.0


# From the spawn to the imported library, on to the loaded model, on to a token.
_PHASES = ("imports", "model", "first token")


class EmbeddedEngine:
    """Starts, swaps and stops the child; all but `spawn` and `kill` belong to one event loop.

    environ: what the child may see of it is passed on, never the worker's secrets.
    log: gets each line that the child prints, in another thread.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, environ: Mapping[str, str], log: LogLine
    ) -> None:
        self._settings = settings
        self._launch = EmbeddedLaunch(settings, catalog)
        self._load = self._launch.load()
        self._environment = environ
        self._log = log
        self._url = f"http://{HOST}:{settings.engine_port}"
        self._process: EngineProcess | None = None
        self._spawned_at = 0.0
        self._imported_at: float | None = None
        self._ready: EngineProcess | None = None
        self._model: str | None = None
        self._died: Latch[str] = Latch()
        self._closed = False
        self._context = settings.engine_context
        self._session: aiohttp.ClientSession | None = None
        self._swap: asyncio.Lock | None = None

    @property
    def model_name(self) -> str | None:
        """The model that is loaded and ready, None when none is."""
        return self._model

    @property
    def model_path(self) -> Path:
        """The file of the model that it is started with."""
        return self._launch.model_path

    @property
    def slots(self) -> int:
        """How many generations really run at once."""
        return self._settings.engine_slots

    @property
    def probe_path(self) -> str:
        """What an idle child answers at once."""
        return "/health"

    @property
    def work_path(self) -> str:
        """What the child answers between two batches of tokens."""
        return "/slots"

    def tail(self) -> list[str]:
        """The last lines that the child printed."""
        return [] if self._process is None else self._process.tail()

    def processor_seconds(self) -> float | None:
        """What the child has used of the processor, None without one."""
        return None if self._process is None else self._process.processor_seconds()

    @property
    def alive(self) -> bool:
        """False after a child died that should live; without a model there is none to die."""
        return self._process is None or self._process.alive

    @property
    def context_length(self) -> int:
        """Tokens of one slot.

        Once a model was ready it is what llama.cpp made of ENGINE_CONTEXT: a multiple of 256, and
        not more than the model was trained for.
        """
        return self._context

    @property
    def pid(self) -> int | None:
        """Process id of the child, None without one."""
        return None if self._process is None else self._process.pid

    def model_names(self) -> list[str]:
        """Return the names of the models that can be loaded."""
        return self._launch.model_names()

    @property
    def loras(self) -> tuple[str, ...]:
        """The LoRAs on the loaded model."""
        return () if self._process is None else self._load.loras

    def lora_names(self) -> list[str]:
        """Return the names of the LoRAs that can be loaded."""
        return self._launch.lora_names()

    def start_loras(self, name: str) -> tuple[str, ...]:
        """The LoRAs that a model has unless a load says otherwise: those of LORA are MODEL's."""
        return self._launch.start_loras(name)

    def describe(self) -> dict[str, Any]:
        """Tell what is true of this engine under the keys of the blocking API's `shared.args`."""
        return self._launch.describe(self._load, model=self._model, context=self._context)

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        """Translate the blocking API, and let OpenAI-compatible requests through."""
        # Imported after the spawn.
        from worker.blocking import BlockingApi  # noqa: PLC0415
        from worker.contract.llama_cpp import check_native  # noqa: PLC0415
        from worker.dispatch import Dispatch  # noqa: PLC0415
        from worker.engines.llama_backend import LlamaBackend  # noqa: PLC0415
        from worker.engines.lora_routes import LoraRoutes  # noqa: PLC0415
        from worker.forward import Forwarder  # noqa: PLC0415

        backend = LlamaBackend(client, self)
        return Dispatch(
            blocking=BlockingApi(
                backend,
                slots,
                self._settings.characters_dir,
                may_load=self._settings.model_admin != "off",
            ),
            openai=LoraRoutes(
                Forwarder(client, slots, check_native),
                slots,
                backend,
                admin=self._settings.model_admin,
            ),
        )

    def spawn(self, load: Load | None = None) -> None:
        """Start the child with a model (MODEL, with its LoRAs); it is not ready yet.

        It may be called again when the child has died. Call it from a thread that lives as long as
        the worker. Raises EngineStartFailed for a file or a port that can't work, EngineDown after
        `stop` or `kill`.
        """
        if self._closed:
            raise EngineDown("the worker is stopping")
        self._load = self._launch.load() if load is None else load
        self._spawned_at, self._imported_at = time.monotonic(), None
        self._ready = self._model = None
        if self._died.value is not None:
            # One that is not set goes on: somebody waits for it through every load.
            self._died = Latch()
        options = self._launch.options(self._load)
        self._process = start_child(options, self._environment, self._take_line, self._on_exit)

    async def wait_ready(
        self, session: aiohttp.ClientSession, timeout: float | None = None
    ) -> Mapping[str, float]:
        """Wait until the child has generated a token; `timeout` seconds (ENGINE_START_TIMEOUT).

        The session is used for later loads too. Raises EngineStartFailed with the cause; there
        is no child any more then, and a later `load` may work.
        """
        import asyncio  # noqa: PLC0415 - imported after the spawn

        self._session, self._swap = session, asyncio.Lock()
        async with self._swap:
            return await self._until_ready(session, timeout)

    async def load(
        self,
        name: str,
        args: Mapping[str, int] | None = None,
        loras: Sequence[str] | None = None,
    ) -> None:
        """Unload what is loaded and load this model, ready when it returns.

        args: n_ctx, threads, n_gpu_layers, in place of the settings' until the next load.
        loras: names, in place of LORA's.

        Raises UnknownRoute for a name that there is not (nothing changes then), or
        EngineStartFailed: no model is loaded after that.
        """
        await self._change(self._launch.load(name, args, loras))

    async def load_loras(self, names: Sequence[str]) -> None:
        """Load the model again, with these LoRAs and no others; see `load`.

        Raises EngineDown without a model. When it fails, the model is loaded as it was before.
        """
        before = self._load
        if self._model is None:
            raise EngineDown("no model is loaded; load one with /model, action load")
        try:
            await self.load(before.model, before.args, names)
        except EngineStartFailed:
            await self._change(before)
            raise

    async def _change(self, load: Load) -> None:
        """Start another child in place of this one."""
        session, swap = self._connected()
        async with swap:
            await self._stop_child(self._settings.engine_stop_timeout)
            self.spawn(load)
            await self._until_ready(session, None)

    async def unload(self) -> None:
        """End the child, when its slots are idle; nothing happens when there is none."""
        _, swap = self._connected()
        async with swap:
            await self._stop_child(self._settings.engine_stop_timeout)

    async def wait_died(self) -> str:
        """Return only when a ready child has died by itself, with the cause in words."""
        return await self._died.wait()

    async def stop(self, grace: float) -> None:
        """Wait up to `grace` seconds until no slot generates, then end the child for good."""
        self._closed = True
        await self._stop_child(grace)

    def abort(self) -> None:
        """Kill a child that hangs, blocking; for everybody else it has died by itself."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """End the child at once, blocking; for the way out of the worker."""
        self._closed = True
        process, self._process, self._ready, self._model = self._process, None, None, None
        if process is not None:
            process.kill()

    async def _until_ready(
        self, session: aiohttp.ClientSession, timeout: float | None
    ) -> Mapping[str, float]:
        """Take the steps to ready; a child that fails one is ended."""
        try:
            times = await self._steps(
                session, self._settings.engine_start_timeout if timeout is None else timeout
            )
        except BaseException:
            await self._stop_child(0)
            raise
        return times

    async def _steps(self, session: aiohttp.ClientSession, timeout: float) -> Mapping[str, float]:
        """Imported library, loaded model, first token; each with the time it took."""
        from worker.engines.ready import Startup  # noqa: PLC0415 - imported after the spawn

        process = self._process
        if process is None:
            raise EngineStartFailed("the engine was not started")
        startup = Startup(process, session, timeout=timeout, explain=explain)
        await startup.until_status(f"{self._url}/health", lambda status: status == 200)
        loaded = time.monotonic()
        await startup.json("POST", f"{self._url}/completion", {"prompt": "1", "n_predict": 1})
        warm = time.monotonic()
        slots = await startup.json("GET", f"{self._url}/slots")
        self._context = slots[0]["n_ctx"]
        self._model, self._ready = self._load.model, process
        if not process.alive:
            raise EngineStartFailed(explain(process))
        # A flood of lines may have swallowed the one that tells of the import.
        marks = (self._spawned_at, self._imported_at or loaded, loaded, warm)
        seconds = (after - before for before, after in itertools.pairwise(marks))
        return dict(zip(_PHASES, seconds, strict=True))

    async def _stop_child(self, grace: float) -> None:
        """Forget the child first, so that its end is not taken for a death; then end it."""
        process, ready = self._process, self._ready
        self._process = self._ready = self._model = None
        if process is None:
            return
        try:
            if ready is not None and process.alive and self._session is not None:
                from worker.engines.ready import until_idle  # noqa: PLC0415 - as in _steps

                await until_idle(self._session, f"{self._url}/slots", grace)
        finally:
            await process.stop(_TERM_SECONDS)

    def _take_line(self, line: str) -> None:
        """Log a line, and note when the library was imported; in the reading thread."""
        if line == IMPORTED:
            self._imported_at = time.monotonic()
        self._log(line)

    def _on_exit(self, process: EngineProcess) -> None:
        """Tell a death from an end that was asked for; runs in the watching thread."""
        if process is self._ready:
            self._died.set(explain(process))

    def _connected(self) -> tuple[aiohttp.ClientSession, asyncio.Lock]:
        """Return the session and the lock that `wait_ready` brought."""
        if self._session is None or self._swap is None:
            raise EngineDown("the engine is not ready yet; try again later")
        return self._session, self._swap
