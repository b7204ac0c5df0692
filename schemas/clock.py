"""The moment as events carry it, and how it reads in Asia/Shanghai."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8))  # no daylight saving since 1991-09-15
OFFSET_MS = 8 * 3_600_000


def wall_clock() -> int:
    """Epoch milliseconds UTC, now."""
    return time.time_ns() // 1_000_000


def iso(ms: int, timespec: str = "auto") -> str:
    """Epoch milliseconds as ISO 8601 with +08:00; ``timespec`` as ``datetime.isoformat`` has it."""
    return datetime.fromtimestamp(ms / 1000, SHANGHAI).isoformat(timespec=timespec)
