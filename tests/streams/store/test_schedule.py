"""Calendars in the database: what is none is buried, whoever published it, and the next one counts."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from connectors.intake.calendar import calendar_row
from schemas.topics import CALENDAR
from streams.store.applier import apply_batch
from streams.store.schedule import ScheduleProjection
from streams.store.tables import calendar_event, dead_letter

pytestmark = pytest.mark.stack
YEARS_THAT_ARE_NONE = (-1, 0, 99_999)


def test_a_calendar_of_a_year_that_cannot_be_counted_is_buried_and_the_next_one_applied(
    engine: sa.Engine, carrying: Any
) -> None:
    good = {**calendar_row(2020, occurred_at=1, department="HS-XZSPJ"), "received_at": 2}
    records = [*({**good, "year": year} for year in YEARS_THAT_ARE_NONE), good]
    apply_batch(engine, ScheduleProjection(), [carrying.carry(CALENDAR, r, n) for n, r in enumerate(records)])
    with engine.connect() as tx:
        kept = tx.execute(sa.select(calendar_event.c.year)).scalars().all()
        buried = tx.execute(sa.select(dead_letter.c.reason, dead_letter.c.field)).all()
    assert kept == [2020]
    assert buried == [("bad_format", "year")] * len(YEARS_THAT_ARE_NONE)
