"""The classic engine's life: text-generation-webui of 2023, with the blocking API.

`spawn` comes before anything heavy is imported, so asyncio and aiohttp are imported after it.
Facts from text-generation-webui@snapshot-2023-11-05: server.py, extensions/api/.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from worker.engine_log import LogLine
from worker.engines.classic_errors import exception_words
from worker.engines.classic_launch import Launch, free_ports, plan
from worker.engines.classic_log import ClassicLog, Failure, Output, failures_of
from worker.engines.loras import Loras
from worker.engines.webui import Checkout, child_environment
from worker.engines.webui_causes import PORT_TAKEN, cause_of
from worker.engines.webui_engine import WebuiProcess
from worker.errors import EngineDown, EngineStartFailed
from worker.settings import Settings

if TYPE_CHECKING:
    import aiohttp

    from worker.answerer import Answerer
    from worker.client import EngineClient
    from worker.engines.ready import Startup
    from worker.slots import Slots

# From the spawn until the API answers (the model was loaded before), until the page is up (the
# process ends when it can't be), until a token.
_PHASES = ("answers", "page", "first token")
# Printed once the port is bound: the proof that it is this process that listens on it.
_LISTENS = "Blocking API URL"
_POLL_SECONDS = 0.1
# What a websocket's server says to plain HTTP.
_UPGRADE_REQUIRED = 426
_LOG_SECONDS = 2.0


class ClassicEngine:
    """Starts and stops the webui; all but `spawn`, `abort` and `kill` belong to one event loop.

    environ: what the process may see of it is passed on, never the worker's secrets.
    log: gets each line that the process prints, in another thread.
    """

    slots = 1  # the engine generates for one request at a time
    probe_path = "/api/v1/model"
    work_path = None

    def __init__(
        self, settings: Settings, checkout: Checkout, environ: Mapping[str, str], log: LogLine
    ) -> None:
        self._settings = settings
        self._launch: Launch = plan(settings, checkout)
        self._environment = child_environment(environ)
        self._pass_on = log
        self.log = ClassicLog()
        self._webui = WebuiProcess(self._take_line)
        self._url = f"http://127.0.0.1:{settings.engine_port}"
        self._streaming_port = 0
        self._page_port = 0
        self._held_back = 0
        self._model: str | None = None
        self._slots: Slots | None = None

    @property
    def model_name(self) -> str | None:
        """The model that is loaded and ready, None when none is."""
        return self._model

    @property
    def pid(self) -> int | None:
        """Process id of the webui, None without one."""
        try:
            return self._webui.process.pid
        except EngineDown:
            return None

    @property
    def port(self) -> int:
        """The blocking API's port."""
        return self._settings.engine_port

    @property
    def model_path(self) -> Path:
        """Where the model of the start is."""
        return self._launch.model_dir / self._launch.model

    @property
    def loras(self) -> Loras:
        """The LoRAs that there are."""
        return self._launch.loras

    def start_loras(self, name: str) -> tuple[str, ...]:
        """The LoRAs that a model has unless a load says otherwise: those of LORA are MODEL's."""
        return self._launch.loras.start if name == self._launch.model else ()

    def tail(self) -> list[str]:
        """The last lines that the process printed, oldest first."""
        return self._webui.tail()

    def processor_seconds(self) -> float | None:
        """What it has used of the processor, None when it is not there."""
        return self._webui.processor_seconds()

    def set_model(self, name: str | None) -> None:
        """Take note of a load or unload."""
        self._model = name

    def answerer(self, client: EngineClient, slots: Slots) -> Answerer:
        """Pass the blocking API through, and translate what it can do of the OpenAI routes."""
        # Imported after the spawn.
        from worker.dispatch import Dispatch  # noqa: PLC0415
        from worker.engines.classic_api import ClassicApi  # noqa: PLC0415
        from worker.engines.classic_generate import (  # noqa: PLC0415
            ONE_TOKEN,
            ClassicGenerator,
            count_held_back,
        )
        from worker.engines.classic_models import ClassicModels  # noqa: PLC0415
        from worker.engines.classic_request import Preparer  # noqa: PLC0415
        from worker.engines.lora_routes import LoraRoutes  # noqa: PLC0415
        from worker.engines.openai_from_blocking import OpenAiFromBlocking  # noqa: PLC0415
        from worker.progress import Progress  # noqa: PLC0415
        from worker.slots import Stop  # noqa: PLC0415

        self._slots = slots
        generator = ClassicGenerator(
            client,
            self.log,
            streaming_port=lambda: self._streaming_port,
            held_back=lambda: self._held_back,
            abort=self.abort,
        )
        preparer = Preparer(self._launch.checkout.folder, self._settings.characters_dir)

        async def warm_up() -> None:
            job = preparer.generate(ONE_TOKEN)
            await generator.generate(job, stop=Stop(), progress=Progress())
            self._held_back = await count_held_back(client.session, self._streaming_port, self.log)

        models = ClassicModels(client, slots, engine=self, warm_up=warm_up, settings=self._settings)
        blocking = ClassicApi(client, slots, models=models, generator=generator, preparer=preparer)
        openai = OpenAiFromBlocking(
            slots, blocking=blocking, models=models, generator=generator, preparer=preparer
        )
        loras = LoraRoutes(openai, slots, models, admin=self._settings.model_admin)
        return Dispatch(blocking=blocking, openai=loras)

    def spawn(self) -> None:
        """Start the process; it is not ready yet. See the protocol, Engine."""
        port = self._settings.engine_port
        self._model = None
        self._streaming_port, self._page_port = free_ports(port, 2)
        self._webui.spawn(
            self._launch.argv(port, self._streaming_port, self._page_port),
            folder=self._launch.checkout.folder,
            environment=self._environment,
            ports=(port,),
            marks=(_LISTENS,),
            unwanted=f'"GET {self.probe_path} HTTP/1.1" 200',
        )

    async def wait_ready(
        self, session: aiohttp.ClientSession, timeout: float | None = None
    ) -> Mapping[str, float]:
        """Wait until the webui has generated a token; `timeout` seconds (ENGINE_START_TIMEOUT).

        Raises EngineStartFailed with the cause; the process is ended then, and its last lines
        are in the log.
        """
        try:
            return await self._steps(
                session, self._settings.engine_start_timeout if timeout is None else timeout
            )
        except EngineStartFailed:
            self._webui.log_tail()
            await self._webui.end()
            raise
        except BaseException:
            await self._webui.end(0)
            raise

    async def wait_died(self) -> str:
        """Return only when the ready engine has died by itself, with the cause in words."""
        return await self._webui.wait_died()

    async def stop(self, grace: float) -> None:
        """Wait up to `grace` seconds until nobody uses the engine, then end it for good."""
        import asyncio  # noqa: PLC0415 - a caller has a loop, so it is loaded already

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle(), grace)
        self._model = None
        await self._webui.stop()

    def abort(self) -> None:
        """Kill a process that hangs, blocking; for everybody else it has died by itself."""
        self._webui.abort()

    def kill(self) -> None:
        """End the process at once, blocking; for the way out of the worker."""
        self._model = None
        self._webui.kill()

    async def _idle(self) -> None:
        """Wait until nobody uses the engine."""
        from worker.slots import Use  # noqa: PLC0415 - as above

        if self._slots is not None:
            async with self._slots.use(Use.CHANGE):
                return

    async def _steps(self, session: aiohttp.ClientSession, timeout: float) -> Mapping[str, float]:
        """API and model, page, first token; each with the time it took."""
        from worker.engines.ready import Startup  # noqa: PLC0415 - imported after the spawn

        startup = Startup(
            self._webui.process,
            session,
            timeout=timeout,
            explain=self._webui.explain,
            poll=_POLL_SECONDS,
        )
        marks = [self._webui.spawned_at]
        await startup.until_status(f"{self._url}{self.probe_path}", self._listens)
        await self._check_name(startup)
        marks.append(time.monotonic())
        await startup.until_status(f"http://127.0.0.1:{self._streaming_port}/", self._streams)
        page = f"http://127.0.0.1:{self._page_port}/robots.txt"
        # Any answer will do, and this one is cheap.
        await startup.until_status(page, lambda status: status > 0)
        marks.append(time.monotonic())
        await self._warm_up(startup, session)
        marks.append(time.monotonic())
        self._webui.set_ready()
        self._model = self._launch.model
        seconds = (after - before for before, after in itertools.pairwise(marks))
        return dict(zip(_PHASES, seconds, strict=True))

    def _listens(self, status: int) -> bool:
        """Whether it is this process that answered; its API's thread may have died alone."""
        if self._webui.seen(_LISTENS) is None:
            self._check_ports()
            return False
        return status == 200

    def _streams(self, status: int) -> bool:
        """Whether its websockets answered; their thread, too, may have died alone."""
        self._check_ports()
        return status == _UPGRADE_REQUIRED

    def _check_ports(self) -> None:
        """Raise EngineStartFailed when its log tells of a port that somebody else has."""
        if cause_of(self.tail()) == PORT_TAKEN:
            raise EngineStartFailed(f"the engine can't be reached: {PORT_TAKEN}")

    async def _check_name(self, startup: Startup) -> None:
        """Make sure that it is the model which was asked for."""
        answer = await startup.json("POST", f"{self._url}/api/v1/model", {})
        name = answer.get("result") if isinstance(answer, dict) else None
        if name != self._launch.model:
            raise EngineStartFailed(
                f"the engine loaded {str(name)[:100]!r} and not {self._launch.model!r}"
            )

    async def _warm_up(self, startup: Startup, session: aiohttp.ClientSession) -> None:
        """Generate one token: the webui names a model, and lives, also when none was loaded."""
        from worker.engines.classic_generate import (  # noqa: PLC0415 - as in _steps
            ONE_TOKEN,
            count_held_back,
        )

        mark = self.log.mark()
        fault: EngineStartFailed | None = None
        try:
            await startup.json("POST", f"{self._url}/api/v1/generate", ONE_TOKEN)
        except EngineStartFailed as error:
            if not self._webui.process.alive:
                raise
            fault = error
        seconds = _LOG_SECONDS if fault is None else 0.0
        entries = await self.log.wait(mark, (Failure, Output), seconds)
        failure = next(failures_of(entries), None)
        if failure is not None:
            raise EngineStartFailed(_not_loaded(failure.text, self.tail()))
        if fault is not None:
            raise fault
        self._held_back = await count_held_back(session, self._streaming_port, self.log)

    def _take_line(self, line: str) -> None:
        """Log a line of the webui's, and look for what it tells; in the reading thread."""
        self.log.feed(line)
        self._pass_on(line)


def _not_loaded(failure: str, tail: list[str]) -> str:
    """Why no token could be generated."""
    cause = cause_of(tail)
    if cause is None and failure.startswith("No model"):
        return "the engine did not load the model; its log says why"
    return f"the engine can't generate: {cause or exception_words(failure)}"
