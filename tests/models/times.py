"""Time limits that keep tests short."""

from __future__ import annotations

from worker.model_fetch import Limits
from worker.model_lock import LockTimes
from worker.model_retry import Patience

QUICK = Patience(total=20, stall=0.4, attempts=3, pause=0.01, longest_pause=0.2)
LOCK = LockTimes(beat=0.05, stale=0.4, look=0.02)
LIMITS = Limits(patience=QUICK, lock=LOCK)
