"""What is started in which order, and stopped in the reverse one.

The engine is spawned before anything heavy is imported: its cold start and the worker's overlap.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker import joblog
from worker.cold_start import ColdStart, importing
from worker.engines.choose import make_engine
from worker.errors import JobError, SettingsError
from worker.model_errors import ModelUnavailable
from worker.model_setting import with_local_models
from worker.settings import Settings

EXIT_NO_MODEL = 1
EXIT_BAD_SETTING = 2
_JOB_FILE = Path("test_input.json")
_ON_PLATFORM = "RUNPOD_WEBHOOK_GET_JOB"
# The SDK, too, takes it for the sign that a log collector reads along (rp_logger.py).
_JSON_LOG = "RUNPOD_ENDPOINT_ID"


def main(arguments: Sequence[str], environ: Mapping[str, str], first_statement: float) -> int:
    """Run the worker and return its exit code.

    first_statement: when the program's first line was run, in monotonic seconds.
    0: the local job is COMPLETED, or the worker was asked to end; 1: the local job is FAILED, the
    model can't be had, or the engine is lost; 2: a bad setting or an unreadable job.
    """
    try:
        return _main(_test_input(arguments), environ, ColdStart(environ, first_statement))
    except KeyboardInterrupt:  # before or after the event loop handled signals
        return 128 + signal.SIGINT


def _main(test_input: str | None, environ: Mapping[str, str], cold_start: ColdStart) -> int:
    """Start the engine, serve with it, end it."""
    cold_start.mark("imports")
    try:
        settings = Settings.from_env(environ)
        joblog.configure(settings.log_level, as_json=_JSON_LOG in environ)
        job = None
        if test_input is not None or _ON_PLATFORM not in environ:
            from worker.local_job import read_job  # noqa: PLC0415

            job = read_job(test_input, _JOB_FILE)
        cold_start.mark("settings")
        settings = with_local_models(settings, joblog.logger.info)
        engine = make_engine(settings, environ, joblog.log_engine)
        cold_start.mark("model lookup")
        engine.spawn()
        cold_start.mark("spawn")
    except ModelUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_MODEL
    except (SettingsError, JobError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_SETTING
    try:
        # Imported only now: the engine is starting meanwhile.
        with importing():
            from worker.read_ahead import start_reading  # noqa: PLC0415

            start_reading(engine.model_path, until=lambda: engine.model_name is not None)
            from worker import service  # noqa: PLC0415
        cold_start.mark("more imports")
        if job is not None:
            return service.run_one(settings, engine, job, cold_start)
        return service.serve(settings, engine, cold_start)
    finally:
        engine.kill()


def _test_input(arguments: Sequence[str]) -> str | None:
    """The job on the command line, None without one."""
    if not arguments:
        return None
    import argparse  # noqa: PLC0415 - on the platform there are no arguments

    parser = argparse.ArgumentParser(
        prog="start.sh", description="Serve RunPod, or run one local job and print its result."
    )
    parser.add_argument(
        "--test_input", metavar="JSON", help="the job to run, in place of test_input.json"
    )
    test_input: str | None = parser.parse_args(arguments).test_input
    return test_input
