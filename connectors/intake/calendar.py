"""Working-day calendars as ``reference.calendar.v1`` records, from the package chinesecalendar. Publishes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from schemas.clock import SHANGHAI
from streams.rules.calendar import NATION, defaults

FIRST, LAST = 2004, 2026
SOURCE = "chinesecalendar 1.11.0: 国务院办公厅关于部分节假日安排的通知"
AS_OF = int(datetime(2025, 11, 4, tzinfo=SHANGHAI).timestamp() * 1000)
"""Day of the newest notice in that version (国办发明电〔2025〕7号): rows made again are the same rows."""


def calendar_rows(
    first: int = FIRST, last: int = LAST, *, occurred_at: int, department: str, region: str = NATION
) -> Iterator[dict[str, Any]]:
    """One row a year, ready for ``Publisher.publish(topics.CALENDAR, …)``; ``occurred_at`` in epoch ms UTC.

    The package knows 2004-2026 and only the final version of each year; a year outside raises ``ValueError``.
    """
    if first < FIRST or last > LAST:
        raise ValueError(f"chinesecalendar knows {FIRST}-{LAST} only")
    for year in range(first, last + 1):
        yield calendar_row(year, occurred_at=occurred_at, department=department, region=region)


def calendar_row(
    year: int,
    *,
    occurred_at: int,
    department: str,
    region: str = NATION,
    revision: int = 1,
    days: list[dict[str, Any]] | None = None,
    hours: list[dict[str, Any]] | None = None,
    source: str = SOURCE,
) -> dict[str, Any]:
    """The row of one year: days that differ from Mon-Fri (None: the package's), and the office hours (None: the
    reference hours all year).
    """
    return {
        "event_type": "calendar.published",
        "region": region,
        "department": department,
        "occurred_at": occurred_at,
        "year": year,
        "revision": revision,
        "calendar_version": f"{year}-r{revision}",
        "source": source,
        "days": different_days(year) if days is None else days,
        "hours": hours or [_hours(year)],
    }


def different_days(year: int) -> list[dict[str, Any]]:
    """Weekdays off and weekend days worked in ``year``, with the name of the holiday that causes them."""
    from chinese_calendar import constants

    off = [(d, False, name) for d, name in constants.holidays.items() if d.year == year and d.weekday() < 5]
    on = [(d, True, name) for d, name in constants.workdays.items() if d.year == year and d.weekday() >= 5]
    return [{"day": d, "working": working, "name": str(name)} for d, working, name in sorted(off + on)]


def _hours(year: int) -> dict[str, Any]:
    sessions = [{"opens": opens, "closes": closes} for opens, closes in defaults().sessions]
    return {"from_on": date(year, 1, 1), "to_on": None, "sessions": sessions}
