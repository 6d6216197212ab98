"""Runs one command and turns whatever went wrong into one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cli import exits
from cli.options import parse
from worker.errors import InvalidJob, JobError, SettingsError, UnknownRoute


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command; its exit code (see `--help`)."""
    options = parse(arguments)
    if options.command == "doctor":
        # What it looks for may be missing, so it must not need the rest.
        from cli.doctor import run as examine  # noqa: PLC0415

        return examine(environ, as_json=options.json)
    from cli import interrupt, terminal  # noqa: PLC0415
    from cli.commands import CANCELLING, COMMANDS  # noqa: PLC0415
    from cli.endpoint_api import Target  # noqa: PLC0415

    try:
        return COMMANDS[options.command](options, Target(options, environ))
    except (SettingsError, InvalidJob, UnknownRoute) as error:
        terminal.print_error(str(error))
        return exits.USAGE
    except JobError as error:
        terminal.print_error(str(error))
        return exits.of_error(error)
    except interrupt.Interrupted as signal:
        terminal.print_note("cancelled" if options.command in CANCELLING else "stopped")
        return exits.TERMINATED if signal.number == interrupt.TERMINATE else exits.INTERRUPTED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()


def _reader_gone() -> int:
    """Whoever reads stdout has had enough: leave without a word, as other programs do."""
    import os  # noqa: PLC0415 - for this rare end alone
    import sys  # noqa: PLC0415

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.FAILED
