"""Everything that can go wrong, on one page.

WorkerError
├── SettingsError          a setting is wrong: the worker does not start (exit 2)
└── JobError               ends one job as FAILED; the text is what the caller reads
    ├── InvalidJob     400  the job's input is wrong, the text says what to send instead
    ├── UnknownRoute   404  no such endpoint, action, model, character or template
    ├── TooLarge       413  input or output over the platform's limit
    ├── OutputError    500  the result can't be sent as JSON
    ├── WorkerBug      500  a fault of the worker itself
    ├── EngineRefused  4xx  the engine answered with an error of its own
    ├── EngineBroken   502  the engine's answer makes no sense, or ended early
    ├── EngineDown     503  the engine is not there (it died, or never became ready)
    ├── EngineStartFailed   503  the engine could not be started
    │   └── ModelUnavailable 503  the model can't be found or downloaded (model_errors.py)
    └── JobTimedOut    504  the job's time was over

The text of a JobError is one short sentence for the caller: no traceback, no path, no secret.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WorkerError(Exception):
    """Base of all errors that the worker raises itself."""


class SettingsError(WorkerError):
    """One or more settings are wrong; the text names every one of them."""


class JobError(WorkerError):
    """A job ends as FAILED with this text.

    `status` is the HTTP status that such a failure would have; `detail` is JSON that a program may
    want (the engine's error object, the partial text of a broken stream), or None.
    """

    default_status: ClassVar[int] = 500

    def __init__(self, message: str, *, status: int | None = None, detail: Any = None) -> None:
        """Keep the caller's sentence, the status (default: the class's) and the detail."""
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.detail = detail


class InvalidJob(JobError):
    """The job's input is wrong."""

    default_status = 400


class UnknownRoute(JobError):
    """What the job asks for does not exist."""

    default_status = 404


class TooLarge(JobError):
    """Input or output is over the platform's limit."""

    default_status = 413


class OutputError(JobError):
    """The result can't be sent as JSON."""


class WorkerBug(JobError):
    """A fault of the worker itself; its log has the traceback, the caller the job's id."""


class EngineRefused(JobError):
    """The engine answered with an error of its own."""

    default_status = 400


class EngineBroken(JobError):
    """The engine's answer makes no sense or ended early."""

    default_status = 502


class EngineDown(JobError):
    """The engine is not there."""

    default_status = 503


class EngineStartFailed(EngineDown):
    """The engine could not be started, or a model could not be loaded; the text tells the cause."""


class JobTimedOut(JobError):
    """The job's time was over before the engine was done."""

    default_status = 504
