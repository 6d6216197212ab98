"""One text-generation-webui process from its spawn to its end, whichever generation it is.

Nothing heavy is imported here: the engine is started before the rest of the worker is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.engine_log import LogLine
from worker.engines import webui_causes
from worker.engines.embedded_child import check_port
from worker.errors import EngineDown, EngineStartFailed
from worker.exits import from_outside
from worker.latch import Latch
from worker.process import EngineProcess

TERM_SECONDS = 2.0
# Enough to hold llama.cpp's own report of a failed load before the webui's traceback.
_TAIL_LINES = 120
_LOGGED_LINES = 50


class WebuiProcess:
    """Spawns the process, tells a death from an end that was asked for, and ends it.

    log: gets each line that the process prints, without colours, in another thread.
    """

    def __init__(self, log: LogLine) -> None:
        self._log = log
        self._process: EngineProcess | None = None
        self._ready = False
        self._aborted = False
        self._closed = False
        self._died: Latch[str] = Latch()
        self.spawned_at = 0.0
        self._seen: dict[str, float] = {}
        self._marks: Sequence[str] = ()

    @property
    def process(self) -> EngineProcess:
        """The process; raises EngineDown before the spawn and after the end."""
        if self._process is None:
            raise EngineDown("the engine is not running")
        return self._process

    @property
    def ready(self) -> bool:
        """It was ready and has not ended."""
        return self._ready

    def spawn(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        ports: Sequence[int],
        marks: Sequence[str] = (),
        unwanted: str = "",
    ) -> None:
        """Start the process in the checkout's folder, once its ports have been seen to be free.

        marks: texts of log lines whose first appearance `seen` tells. unwanted: of lines to drop.
        It may be called again when the process has ended. Raises EngineStartFailed for a taken
        port, EngineDown after `stop` or `kill`.
        """
        if self._closed:
            raise EngineDown("the worker is stopping")
        for port in ports:
            check_port(port)
        self._marks, self._seen = marks, {}
        self._ready = self._aborted = False
        if self._died.value is not None:
            # One that is not set goes on: somebody waits for it through every load.
            self._died = Latch()
        self.spawned_at = time.monotonic()
        try:
            self._process = EngineProcess.spawn(
                argv,
                cwd=folder,
                env=environment,
                log=self._take_line,
                tail_lines=_TAIL_LINES,
                unwanted=unwanted,
                on_exit=self._on_exit,
                guarded=True,
            )
        except OSError as error:
            raise EngineStartFailed(f"no process can be made: {error.strerror}") from error

    def seen(self, mark: str) -> float | None:
        """When (monotonic) a mark was first printed; None when it was not."""
        return self._seen.get(mark)

    def tail(self) -> list[str]:
        """The last lines that it printed, oldest first."""
        return [] if self._process is None else self._process.tail()

    def processor_seconds(self) -> float | None:
        """What the process group has used of the processor, None when there is none."""
        return None if self._process is None else self._process.processor_seconds()

    def set_ready(self) -> None:
        """From now on an end that was not asked for is a death.

        Raises EngineStartFailed when the process has ended already.
        """
        if not self.process.alive:
            raise EngineStartFailed(self.explain(self.process))
        self._ready = True

    def report_child_death(self, who: str, code: int) -> None:
        """Take note of a child's death, which the process itself outlived. code: as of Popen."""
        if self._ready and self._process is not None:
            how = self._process.describe_exit(code)
            by_itself = not from_outside(code)
            self._died.set(webui_causes.died(self.tail(), how, by_itself=by_itself, who=who))

    async def wait_died(self) -> str:
        """Return only when the ready engine has died by itself, with the cause in words."""
        return await self._died.wait()

    def explain(self, process: EngineProcess) -> str:
        """Why a process ended, as one plain sentence."""
        by_itself = process.ended_by_itself or self._aborted
        return webui_causes.died(process.tail(), process.exit_text(), by_itself=by_itself)

    def log_tail(self) -> None:
        """Log the last lines once more, marked, so that they stand beside a report of failure."""
        lines = [line for line in map(webui_causes.clean, self.tail()) if line][-_LOGGED_LINES:]
        for line in lines:
            self._log(f"| {line}")

    def abort(self) -> None:
        """Kill a process that is of no more use, blocking; for all others it has died by itself."""
        self._aborted = True
        if self._process is not None:
            self._process.kill()

    async def end(self, term_seconds: float = TERM_SECONDS) -> None:
        """End the process group: TERM, then KILL; it may be spawned again."""
        self._ready = False
        process, self._process = self._process, None
        if process is not None:
            await process.stop(term_seconds)

    async def stop(self, term_seconds: float = TERM_SECONDS) -> None:
        """End the process group for good."""
        self._closed = True
        await self.end(term_seconds)

    def kill(self) -> None:
        """End the process group at once, blocking; for the way out of the worker."""
        self._closed, self._ready = True, False
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _take_line(self, line: str) -> None:
        """Log a line, and note the time of one that was waited for; in the reading thread."""
        line = webui_causes.clean(line)
        if not line:
            return
        for mark in self._marks:
            if mark in line:
                self._seen.setdefault(mark, time.monotonic())
        self._log(line)

    def _on_exit(self, process: EngineProcess) -> None:
        """Tell a death from an end that was asked for; runs in the watching thread."""
        if self._ready and process is self._process:
            self._died.set(self.explain(process))
