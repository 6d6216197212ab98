"""Large blocks of memory go back to the system as soon as they are freed.

glibc raises its threshold for that to the size of the largest block that was ever freed (up to 32
MB; mallopt(3), M_MMAP_THRESHOLD): after one large job the worker held a copy more of each that
followed. A threshold that is set stays.
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1_048_576


def give_back_large_blocks() -> bool:
    """Set it for this process; False where the C library has no such threshold."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _LARGE))
