"""Where the time of a start went: one line of the log, from the shell to the first job asked for.

Nothing heavy is imported here: it is at work before the engine is started.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from worker.joblog import logger

# start.sh: when it began and when it ended, in seconds of the wall clock, with a blank between.
SHELL_TIMES = "WORKER_SHELL_TIMES"


class ColdStart:
    """The phases of one start; each is ended by a mark, and the next one begins there.

    first_statement: when the interpreter ran the program's first line; began: when the start began,
    as far as that is known. Both in monotonic seconds.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        first_statement: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._last = first_statement
        began = wall() - (clock() - first_statement)
        self._phases = _before_python(environ.get(SHELL_TIMES, ""), began)
        self.began = first_statement - sum(self._phases.values())

    def mark(self, phase: str) -> None:
        """End a phase."""
        now = self._clock()
        self._phases[phase] = now - self._last
        self._last = now

    def report(self, engine: Mapping[str, float]) -> None:
        """Log the phases, and the engine's own, which run beside the worker's from its spawn on."""
        total = sum(self._phases.values())
        text = f"cold start {total:.2f} s: {_listed(self._phases)}"
        if engine:
            text += f"; the engine, meanwhile: {_listed(engine)}"
        phases = {name: round(seconds, 4) for name, seconds in self._phases.items()}
        meanwhile = {name: round(seconds, 4) for name, seconds in engine.items()}
        fields = {"cold_start": phases, "cold_start_engine": meanwhile}
        logger.info("%s", text, extra={"fields": fields})


@contextmanager
def importing() -> Iterator[None]:
    """Import in the block: without the garbage collector, and it never looks at all that again.

    Imports make tens of thousands of objects that stay: looking through them takes a tenth of the
    imports' time (30 ms), and later ten milliseconds of every full collection.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _before_python(handed: str, first_statement: float) -> dict[str, float]:
    """The seconds of the shell and of the interpreter's start; {} when nobody told, or nonsense.

    first_statement: on the wall clock, which the shell's times are on and which may be set.
    """
    try:
        # bash writes the fraction as the locale does
        began, ended = (float(part.replace(",", ".")) for part in handed.split())
    except ValueError:
        return {}
    if not began <= ended <= first_statement:
        return {}
    return {"shell": ended - began, "interpreter": first_statement - ended}


def _listed(phases: Mapping[str, float]) -> str:
    """Write "this 0.12, that 0.34"."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
