"""`doctor`: checks the machine or image that it runs on, and says what to do.

It needs the standard library and the worker's settings only: rich may be what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from cli import machine_checks, worker_checks
from cli.check import BAD, Check

_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


def run(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print every check; 0 when nothing has to be mended, else 1."""
    checks = [*machine_checks.all_checks(), *worker_checks.all_checks(environ)]
    if as_json:
        report = {"ok": all(check.state != BAD for check in checks)}
        sys.stdout.write(json.dumps({**report, "checks": [asdict(check) for check in checks]}))
        sys.stdout.write("\n")
    else:
        for check in checks:
            sys.stdout.write(_lines(check))
        bad = sum(check.state == BAD for check in checks)
        sys.stdout.write(f"\n{bad} to mend\n" if bad else "\nnothing has to be mended\n")
    return int(any(check.state == BAD for check in checks))


def _lines(check: Check) -> str:
    text = f"{_MARKS[check.state]}  {check.name:<12} {check.found}\n"
    return text + (f"{'':19}-> {check.advice}\n" if check.advice else "")
