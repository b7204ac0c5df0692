"""Whether an overdue case was served late or only entered late. Thresholds are data (lateness.toml). Pure.

Codes are those of ``govbus.lateness``. The clock runs on ``occurred_at``; when the bus could know of it is
``entered_at`` (keyed in) and ``received_at`` (DOMAIN 3.6 rule 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from streams.rules.calendar import MINUTE_MS
from streams.rules.data import data

LATE_SERVICE, LATE_ENTRY, BACKFILL = "LATE_SERVICE", "LATE_ENTRY", "BACKFILL"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on an entry is a backfill: its age in ms, or so many together within a slot of ms."""

    backfill_ms: int
    bulk_events: int
    bulk_ms: int


@cache
def thresholds() -> Thresholds:
    """The thresholds of ``lateness.toml``."""
    raw = data("lateness")
    return Thresholds(raw["backfill_days"] * 86_400_000, raw["bulk_events"], raw["bulk_minutes"] * MINUTE_MS)


def in_time_known_late(due_at: int | None, stopped_at: int | None, received_at: int | None) -> bool:
    """Whether a case stopped by its due minute, and the bus heard of it only after that. Times epoch ms."""
    if due_at is None or stopped_at is None or received_at is None:
        return False
    return stopped_at < due_at + MINUTE_MS <= received_at


def label(
    due_at: int | None,
    stopped_at: int | None,
    entered_at: int | None,
    received_at: int | None,
    together: int,
    as_of: int,
    provisional: bool = False,
) -> str:
    """Why a case is, or looked, overdue at ``as_of``; "" if it neither is nor did. Times epoch ms UTC.

    ``stopped_at``: when it was decided, returned or transferred (None: open); ``entered_at`` and ``received_at`` of
    that event; ``together``: how many such stops of the department were keyed in within the same slot, with this one;
    ``provisional``: the calendar of a year up to the due time is not published, so nothing is late yet (§3.6).
    """
    if due_at is None or provisional:
        return ""
    if stopped_at is None or stopped_at >= due_at + MINUTE_MS:
        return LATE_SERVICE if as_of >= due_at + MINUTE_MS else ""
    if received_at is None or not in_time_known_late(due_at, stopped_at, received_at):
        return ""
    limits, keyed = thresholds(), received_at if entered_at is None else entered_at
    old = keyed - stopped_at >= limits.backfill_ms
    return BACKFILL if old or together >= limits.bulk_events else LATE_ENTRY
