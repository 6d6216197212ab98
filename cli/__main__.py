"""`python -m cli`: see `python -m cli --help`, and docs/cli.md for the exit codes."""

from __future__ import annotations

import os
import sys

from cli.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
