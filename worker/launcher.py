"""Run a command that is killed when the process that started it dies.

`python launcher.py PARENT COMMAND [ARGUMENT...]`: asks the kernel to send SIGKILL to this process
when its parent dies, then becomes the command; the request outlives exec. PARENT is the process
id of the one who starts this: if that one died before the request was made, the command is not
run. Linux only (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html); "parent" is
the thread that started this, so that has to be one that lives as long as the process.

Children that the command starts are not covered: in a container they end with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def main(arguments: list[str]) -> int:
    """Become the command; returns an exit code only when that is not possible."""
    parent, command = int(arguments[0]), arguments[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return NOT_STARTED
    # Python ignores this one and a command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose
    except OSError as error:
        sys.stdout.write(f"the program can't be run: {error.strerror}\n")
    return NOT_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
