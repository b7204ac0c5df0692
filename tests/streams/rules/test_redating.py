"""Which clock a calendar moved, while nobody has accepted the case and afterwards."""

from __future__ import annotations

import uuid
from datetime import date

import pytest

from connectors.intake.calendar import calendar_row
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_at, day_of, epoch_ms
from streams.rules.judge import References
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions
from streams.rules.redating import redated

ITEM = "11430903MBDEM0138T4000715002000"
REVISED = 10


def known() -> References:
    """2020 before and after the emergency notice; an item promised in two working days."""
    row = {**calendar_row(2020, occurred_at=1, department="HS-XZSPJ"), "received_at": REVISED}
    days = [d for d in row["days"] if d["day"] != date(2020, 1, 31)]
    days.append({"day": date(2020, 2, 1), "working": True, "name": "春节"})
    calendars = [Publication.of({**row, "days": days, "received_at": 1}), Publication.of({**row, "revision": 2})]
    item = {
        "event_type": "item.published", "item_version": 1, "occurred_at": 0, "promise_limit": 2.0,
        "promise_unit_code": "1", "statutory_limit": None, "statutory_unit_code": "1", "limit_rule": "",
        "effective_on": date(2004, 1, 1), "cancelled_on": None,
    }  # fmt: skip
    return References(CalendarHistory(calendars), {ITEM: item_versions([item])})


@pytest.mark.parametrize(
    ("accepted", "clock", "before", "after"),
    [(False, "acceptance", date(2020, 2, 5), date(2020, 2, 7)), (True, "handling", date(2020, 2, 1), date(2020, 2, 4))],
)
def test_a_calendar_moves_the_clock_of_the_answer_until_silence_has_made_a_case_accepted(
    accepted: bool, clock: str, before: date, after: date
) -> None:
    at = epoch_ms(day_of(date(2020, 1, 23)) * DAY_MINUTES + 15 * 60)
    submitted = CaseEvent(str(uuid.UUID(int=1)), "submitted", "430903", "HS-ZRZYJ", ITEM, at, at)
    (moved,) = redated("C-1", [submitted], accepted, known(), REVISED)
    days = [day_at(due or 0) for due in (moved.due_before, moved.due_after)]
    assert (moved.clock, *days, moved.open) == (clock, before, after, True)
