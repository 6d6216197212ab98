"""Run a command that is killed when the process that started it dies.

`python launcher.py PARENT [--guard] COMMAND [ARGUMENT...]`: asks the kernel to send SIGKILL to this
process when its parent dies, then becomes the command; the request outlives exec. PARENT is the
process id of the one who starts this: if that one died before the request was made, the command is
not run. Linux only (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html); "parent"
is the thread that started this, so that has to be one that lives as long as the process.

The request covers the command alone. With --guard the children that it starts, as
text-generation-webui starts a llama-server, die with it too: a shell is left in the process group,
which the command has to lead. It waits until the command is gone, whatever ended it, and kills the
rest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127
GUARD = "--guard"
_SHELL = "trap '' HUP INT TERM; read _; kill -KILL 0"


def main(arguments: list[str]) -> int:
    """Become the command; returns an exit code only when that is not possible."""
    parent, guarded = int(arguments[0]), arguments[1] == GUARD
    command = arguments[2:] if guarded else arguments[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return NOT_STARTED
    if guarded:
        _guard_group()
    # Python ignores this one and a command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose
    except OSError as error:
        sys.stdout.write(f"the program can't be run: {error.strerror}\n")
    return NOT_STARTED


def _guard_group() -> None:
    """Leave the shell behind, as a child of the command's to be.

    It reads a pipe that nobody writes to. The command inherits the other end and keeps it open as
    long as it lives; whatever it starts closes it, as Python's subprocess does.
    """
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # the worker reads the output to its end
            for handle, to in enumerate((reading, nowhere, nowhere)):
                os.dup2(to, handle)
            os.execv("/bin/sh", ["sh", "-c", _SHELL])  # noqa: S606 - no caller's word is in it
        finally:
            os._exit(NOT_STARTED)
    os.close(reading)
    os.set_inheritable(writing, True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
