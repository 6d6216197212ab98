"""What is started in which order, and stopped in the reverse one.

The engine is spawned before anything heavy is imported: its cold start and the worker's overlap.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker import joblog
from worker.engines.choose import make_engine
from worker.errors import JobError, SettingsError
from worker.model_errors import ModelUnavailable
from worker.model_setting import with_local_model
from worker.settings import Settings

EXIT_NO_MODEL = 1
EXIT_BAD_SETTING = 2
_JOB_FILE = Path("test_input.json")
_ON_PLATFORM = "RUNPOD_WEBHOOK_GET_JOB"
# The SDK, too, takes it for the sign that a log collector reads along (rp_logger.py).
_JSON_LOG = "RUNPOD_ENDPOINT_ID"


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the worker and return its exit code.

    0: the local job is COMPLETED, or the worker was asked to end; 1: the local job is FAILED, the
    model can't be had, or the engine is lost; 2: a bad setting or an unreadable job.
    """
    try:
        return _main(_parse(arguments), environ, queued_at=time.monotonic())
    except KeyboardInterrupt:  # before or after the event loop handled signals
        return 128 + signal.SIGINT


def _main(options: argparse.Namespace, environ: Mapping[str, str], *, queued_at: float) -> int:
    """Start the engine, serve with it, end it."""
    try:
        settings = Settings.from_env(environ)
        joblog.configure(settings.log_level, as_json=_JSON_LOG in environ)
        job = None
        if options.test_input is not None or _ON_PLATFORM not in environ:
            from worker.local_run import read_job  # noqa: PLC0415

            job = read_job(options.test_input, _JOB_FILE)
        settings = with_local_model(settings, joblog.logger.info)
        engine = make_engine(settings, environ, joblog.log_engine)
        engine.spawn()
    except ModelUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_MODEL
    except (SettingsError, JobError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_SETTING
    try:
        # Imported only now: the engine is starting meanwhile.
        from worker import service  # noqa: PLC0415

        if job is not None:
            return service.run_one(settings, engine, job, queued_at=queued_at)
        return service.serve(settings, engine)
    finally:
        engine.kill()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="start.sh", description="Serve RunPod, or run one job locally and print its result."
    )
    parser.add_argument(
        "--test_input", metavar="JSON", help="the job to run, in place of test_input.json"
    )
    return parser.parse_args(arguments)
