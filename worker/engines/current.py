"""Today's text-generation-webui (textgen v4, OpenAI-compatible API): the engine's life.

Facts from https://github.com/oobabooga/text-generation-webui, textgen v4.9: server.py and
modules/api/script.py. Its port opens only after the model load was tried, its health route knows
nothing of the model, and a taken port makes it take another one; so readiness is asked of an
extension of ours inside it (webui_extension/script.py), under a path that proves whose it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.engine_log import LogLine
from worker.engines import user_data, webui_causes
from worker.engines.current_launch import EXTENSION, Launch, plan
from worker.engines.textgen_load import LoadedWith
from worker.engines.textgen_state import (
    State,
    decode_path,
    extra_flags_path,
    info_path,
    parse_state,
    state_path,
    work_path,
)
from worker.engines.webui import Checkout, child_environment
from worker.engines.webui_engine import WebuiProcess
from worker.errors import EngineDown, EngineStartFailed
from worker.settings import Settings

if TYPE_CHECKING:
    import asyncio

    import aiohttp

    from worker.answerer import Answerer
    from worker.client import EngineClient
    from worker.slots import Slots

_EXTENSION_FOLDER = Path(__file__).with_name("webui_extension")
_NONCE_VARIABLE = "WORKER_STATE_NONCE"
_LOADING = 'Loading "'
_OTHER_PORT = "is already in use. Using port"
_IDLE_POLL_SECONDS = 0.05
_LOG_SECONDS, _LOG_POLL_SECONDS = 0.5, 0.02
_WATCH_SECONDS = 0.1
_ANSWER_SECONDS = 5.0
_FIRST_TOKEN = {"prompt": "1", "max_tokens": 1, "temperature": 0, "stream": False}


class CurrentEngine:
    """Starts, watches and stops one textgen; all but `spawn`, `abort` and `kill` need a loop.

    environ: what the process may see of it is passed on, never the worker's secrets.
    log: gets each line that it prints, in another thread. Raises SettingsError, or
    EngineStartFailed for a model's file that can't be one.
    """

    def __init__(
        self, settings: Settings, checkout: Checkout, environ: Mapping[str, str], log: LogLine
    ) -> None:
        self.settings = settings
        self.launch: Launch = plan(settings, checkout)
        self._environ = environ
        self._webui = WebuiProcess(log)
        self._nonce = ""
        self._overlay: Path | None = None
        self._state: State | None = None
        self.loaded_with = LoadedWith()
        self._url = f"http://127.0.0.1:{settings.engine_port}"
        self._session: aiohttp.ClientSession | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """How many generations the loader really runs at once."""
        return self.launch.slots

    @property
    def probe_path(self) -> str:
        """What an idle engine answers at once."""
        return state_path(self._nonce)

    @property
    def work_path(self) -> str:
        """What its llama-server answers between two batches, if it has one."""
        return work_path(self._nonce)

    @property
    def model_name(self) -> str | None:
        """The model that is loaded and ready, None when none is."""
        return self._state.model if self._state is not None else None

    @property
    def model_path(self) -> Path:
        """The model that it is started with: a file or a folder."""
        return self.launch.model_path

    @property
    def state(self) -> State:
        """What was loaded when the engine was last asked; EngineDown before it was ready."""
        if self._state is None:
            raise EngineDown("the engine is not ready yet; try again later")
        return self._state

    @property
    def decode_path(self) -> str:
        """The route that makes text of tokens, special ones too."""
        return decode_path(self._nonce)

    @property
    def extra_flags_path(self) -> str:
        """The route that sets llama-server's extra flags for the next load."""
        return extra_flags_path(self._nonce)

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        return self._webui.tail()

    def processor_seconds(self) -> float | None:
        """What it and its llama-server have used of the processor, None when it is not there."""
        return self._webui.processor_seconds()

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        """Translate the blocking API, and let OpenAI-compatible requests through."""
        # Imported after the spawn.
        from worker.blocking import BlockingApi  # noqa: PLC0415
        from worker.dispatch import Dispatch  # noqa: PLC0415
        from worker.engines.lora_routes import LoraRoutes  # noqa: PLC0415
        from worker.engines.textgen_backend import TextgenBackend  # noqa: PLC0415
        from worker.engines.textgen_forward import TextgenForwarder  # noqa: PLC0415

        backend = TextgenBackend(client, self)
        return Dispatch(
            blocking=BlockingApi(
                backend,
                slots,
                self.settings.characters_dir,
                may_load=self.settings.model_admin != "off",
            ),
            openai=LoraRoutes(
                TextgenForwarder(client, slots, backend, self),
                slots,
                backend.models,
                admin=self.settings.model_admin,
            ),
        )

    def spawn(self) -> None:
        """Start the process; it is not ready yet, and may be spawned again when it has died.

        Call it from a thread that lives as long as the worker. Raises EngineStartFailed for a
        taken port or a temporary folder that can't be written, EngineDown after `stop` or `kill`.
        """
        self._remove_overlay()
        self._state, self._nonce = None, os.urandom(16).hex()
        self.loaded_with = LoadedWith()
        self._overlay = user_data.overlay(self.launch.user_data, EXTENSION, _EXTENSION_FOLDER)
        try:
            self._webui.spawn(
                self.launch.argv(self.settings.engine_port, self._overlay),
                folder=self.launch.checkout.folder,
                environment={**child_environment(self._environ), _NONCE_VARIABLE: self._nonce},
                ports=(self.settings.engine_port,),
                marks=(_LOADING, _OTHER_PORT),
            )
        except BaseException:
            self._remove_overlay()
            raise

    async def wait_ready(self, session: aiohttp.ClientSession) -> Mapping[str, float]:
        """Wait until a token was generated; the seconds of each phase.

        Raises EngineStartFailed with the cause, which the log tells too; the process has ended
        then, and may be spawned again.
        """
        self._session = session
        try:
            times = await self._steps(session)
        except BaseException as error:
            if isinstance(error, EngineStartFailed):
                self._webui.log_tail()
            await self._end(0)
            raise
        import asyncio  # noqa: PLC0415 - imported after the spawn

        self._watching = asyncio.create_task(self._watch())
        return times

    async def refresh(self) -> State:
        """Ask what is loaded now; raises EngineDown when the engine does not tell in time."""
        state = await self._ask()
        if state is None:
            raise EngineDown("the engine does not answer; try again")
        self._state = state
        return state

    async def info(self) -> Mapping[str, Any]:
        """The engine's args and settings, without secrets; {} when it does not tell."""
        answer = await self._get(info_path(self._nonce))
        return answer if isinstance(answer, dict) else {}

    async def load_fault(self) -> str:
        """Why the last load failed, as the log tells it: a little later than the answer."""
        import asyncio  # noqa: PLC0415 - imported after the spawn

        deadline = time.monotonic() + _LOG_SECONDS
        while (cause := webui_causes.cause_of(self._last_load())) is None:
            if time.monotonic() > deadline:
                return "the worker's log has the engine's own report"
            await asyncio.sleep(_LOG_POLL_SECONDS)
        return cause

    def _last_load(self) -> list[str]:
        """The log from the last load on."""
        lines = self.tail()
        begun = [number for number, line in enumerate(lines) if _LOADING in line]
        return lines[begun[-1] :] if begun else lines

    async def wait_died(self) -> str:
        """Return only when the ready engine, or its llama-server, has died by itself."""
        return await self._webui.wait_died()

    async def stop(self, grace: float) -> None:
        """Wait up to `grace` seconds until nothing is generated, then end the process for good."""
        if self._webui.ready:
            await self._until_idle(grace)
        await self._end(None)

    def abort(self) -> None:
        """Kill a process that hangs, blocking; for everybody else it has died by itself."""
        self._webui.abort()

    def kill(self) -> None:
        """End the process at once, blocking; for the way out of the worker."""
        self._state = None
        self._webui.kill()
        self._remove_overlay()

    async def _steps(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """Imports, model load, first token; each with the time it took."""
        from worker.engines.ready import Startup  # noqa: PLC0415 - imported after the spawn

        webui = self._webui
        startup = Startup(
            webui.process,
            session,
            timeout=self.settings.engine_start_timeout,
            explain=webui.explain,
        )
        url = f"{self._url}{state_path(self._nonce)}"
        await startup.until_status(url, self._is_ours)
        answered = time.monotonic()
        state = parse_state(await startup.json("GET", url))
        if state.model is None:
            raise EngineStartFailed(
                f"the engine has not loaded {self.launch.model}: {await self.load_fault()}"
            )
        await startup.json("POST", f"{self._url}/v1/completions", _FIRST_TOKEN)
        warm = time.monotonic()
        self._state = parse_state(await startup.json("GET", url))
        webui.set_ready()
        loading = webui.seen(_LOADING) or answered
        return {
            "imports": loading - webui.spawned_at,
            "model": answered - loading,
            "first token": warm - answered,
        }

    def _is_ours(self, status: int) -> bool:
        """Take a status of the state's route: 200 is ours, anything else is somebody else's."""
        if self._webui.seen(_OTHER_PORT) is not None or status not in (0, 200):
            raise EngineStartFailed(f"the engine's port {self.settings.engine_port} is taken")
        return status == 200

    async def _watch(self) -> None:
        """Look at the llama-server, whose death the webui itself outlives and does not tell."""
        import asyncio  # noqa: PLC0415 - imported after the spawn

        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            state = await self._ask()
            # No answer is no death: loading a model blocks all of textgen's answers.
            if state is None:
                continue
            self._state = state
            if state.child_exit is not None:
                self._webui.report_child_death("engine's llama-server", state.child_exit)
                return

    async def _ask(self) -> State | None:
        """The state, None without an answer in time."""
        answer = await self._get(state_path(self._nonce))
        return None if answer is None else parse_state(answer)

    async def _get(self, path: str) -> Any:
        """One answer of our extension, None without one in time."""
        import asyncio  # noqa: PLC0415 - imported after the spawn

        import aiohttp  # noqa: PLC0415 - as above

        if self._session is None or self._session.closed:
            return None
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        try:
            async with self._session.get(self._url + path, timeout=timeout) as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
            return None

    async def _until_idle(self, grace: float) -> None:
        """Wait until nothing is generated, as far as the engine tells."""
        import asyncio  # noqa: PLC0415 - imported after the spawn

        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            state = await self._ask()
            if state is None or state.busy == 0:
                return
            await asyncio.sleep(_IDLE_POLL_SECONDS)

    async def _end(self, term_seconds: float | None) -> None:
        """Stop watching and end the process; for good with None, else it may be spawned again."""
        self._state = None
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        try:
            if term_seconds is None:
                await self._webui.stop()
            else:
                await self._webui.end(term_seconds)
        finally:
            self._remove_overlay()

    def _remove_overlay(self) -> None:
        """Remove the overlay of the last spawn."""
        made, self._overlay = self._overlay, None
        if made is not None:
            user_data.remove(made)
