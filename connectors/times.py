"""Decides which moment or day a text or number means. Naive texts are Asia/Shanghai; moments are epoch ms
UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from schemas.clock import SHANGHAI

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
ISO = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,6})?)?(Z|z|[+-]\d{2}:?\d{2})?")
COMPACT = re.compile(r"\d{8}T?\d{6}")  # YYYYMMDDThhmmss and YYYYMMDDhhmmss of GB/T 39046 (DOMAIN §3.4)
EPOCH_MS = re.compile(r"-?\d{11,13}")
NO_EPOCH_MS = 10**13
"""From here on a number is no epoch milliseconds before 2286, but YYYYMMDDhhmmss in a cell that is a number."""
SHEETS = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(?: (\d{1,2}):(\d{2})(?::(\d{2}))?)?")  # as Excel and WPS write a CSV
DAY = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
FOREVER = frozenset({"长期", "99991231", "9999-12-31", "9999/12/31"})  # no end of validity (DOMAIN §6.3)
MENDS = (
    "send epoch milliseconds, ISO 8601, yyyy-MM-dd HH:mm:ss, yyyy/M/d H:mm or YYYYMMDDhhmmss (no offset: Asia/Shanghai)"
)


def moment(value: object) -> int:
    """Epoch milliseconds UTC of a number (already that), an aware ``datetime`` or a text; ``ValueError``
    otherwise.

    A ``datetime`` without an offset, as spreadsheets hold it, is Asia/Shanghai like a text without one.
    """
    if isinstance(value, bool):
        raise ValueError("not a time")
    if isinstance(value, int):
        if value >= NO_EPOCH_MS:
            raise ValueError("not a time")
        return value
    if isinstance(value, datetime):
        return _millis(value)
    if isinstance(value, str):
        return _moment_of(value.strip())
    raise ValueError("not a time")


@lru_cache(maxsize=4_096)
def _moment_of(text: str) -> int:
    if ISO.fullmatch(text):
        return _millis(datetime.fromisoformat(text.replace(",", ".").upper()))
    if COMPACT.fullmatch(text):
        return _millis(datetime.strptime(text.replace("T", ""), "%Y%m%d%H%M%S"))  # noqa: DTZ007
    if EPOCH_MS.fullmatch(text):
        return int(text)
    if (found := SHEETS.fullmatch(text)) and found[4]:
        return _millis(datetime(*(int(part or 0) for part in found.groups())))  # type: ignore[arg-type]  # noqa: DTZ001
    raise ValueError("not a time in a known format")


def _millis(value: datetime) -> int:
    aware = value if value.tzinfo else value.replace(tzinfo=SHANGHAI)
    return (aware - EPOCH) // MILLISECOND


def day(value: object) -> date | None:
    """The day of a ``date``, or of a text ``yyyy-MM-dd``, ``yyyy/M/d`` or ``YYYYMMDD``; None for 长期 and 9999-12-31
    (no end).
    """
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value if value.year < 9999 else None
    if isinstance(value, str):
        return _day_of(value.strip())
    raise ValueError("not a day")


@lru_cache(maxsize=16_384)  # days repeat more than moments: those of forty years
def _day_of(text: str) -> date | None:
    if text in FOREVER:
        return None
    if (found := SHEETS.fullmatch(text)) and not found[4]:
        return date(int(found[1]), int(found[2]), int(found[3]))
    if not DAY.fullmatch(text):
        raise ValueError("not a day in a known format")
    return date.fromisoformat(text)
