"""Exit codes of processes in words: who or what ended them. Pure."""

from __future__ import annotations

import signal

_SIGNALS = {
    signal.SIGILL: "this processor lacks an instruction that it needs",
    signal.SIGABRT: "it aborted",
    signal.SIGBUS: "it crashed",
    signal.SIGSEGV: "it crashed",
    signal.SIGTERM: "asked to end from outside",
}
# By whether the kernel has killed for want of memory since the start, as far as it tells.
_KILLED = {True: "out of memory", False: "from outside", None: "out of memory, or from outside"}
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def exit_text(code: int, *, out_of_memory: bool | None = None) -> str:
    """Put an exit code into words: "exit code 1", "killed by signal 11 (it crashed)".

    out_of_memory: whether the kernel killed for want of memory meanwhile, None if it does not tell.
    """
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return f"killed by signal {-code} ({_KILLED[out_of_memory]})"
    hint = next((text for number, text in _SIGNALS.items() if number == -code), None)
    return f"killed by signal {-code} ({hint})" if hint else f"killed by signal {-code}"


def from_outside(code: int) -> bool:
    """Whether an exit code is that of a process which somebody ended."""
    return -code in _FROM_OUTSIDE
