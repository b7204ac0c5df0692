"""The moment as events carry it."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Epoch milliseconds UTC, now."""
    return time.time_ns() // 1_000_000
