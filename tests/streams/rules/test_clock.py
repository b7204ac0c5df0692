"""Deadlines: every row of DOMAIN 3.7 and 4.1 by hand, and a slow clock that counts minute by minute."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.intake.calendar import calendar_rows
from streams.rules import clock
from streams.rules.calendar import DAY_MINUTES, Calendar, CalendarHistory, Publication, date_of, day_of
from streams.rules.limits import Limit, counting

ROWS = [{**row, "received_at": 0} for row in calendar_rows(occurred_at=0, department="HS-XZSPJ")]
CALENDAR = CalendarHistory(Publication.of(row) for row in ROWS).known_at(0, "430903")


def minute(text: str) -> int:
    at = datetime.fromisoformat(text)
    return day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute


def text(at: int | None) -> str | None:
    if at is None:
        return None
    return f"{date_of(at // DAY_MINUTES)} {at % DAY_MINUTES // 60:02}:{at % 60:02}"


def line(
    accepted: str,
    amount: float,
    unit: str = "1",
    pauses: tuple[tuple[str, str | None], ...] = (),
    extension: float = 0.0,
    calendar: Calendar = CALENDAR,
) -> clock.Deadline:
    union = clock.union((minute(a), None if b is None else minute(b)) for a, b in pauses)
    return clock.deadline(calendar, minute(accepted), Limit(amount, unit), counting(), union, extension)


@pytest.mark.parametrize(
    ("accepted", "limit", "due", "yellow"),
    [
        ("2020-09-25 16:50", 0.5, "2020-09-27 13:20", "2020-09-27 11:38"),
        ("2021-09-30 16:50", 0.5, "2021-10-08 13:20", "2021-10-08 11:38"),
        ("2022-09-30 16:50", 0.5, "2022-10-08 13:20", "2022-10-08 11:38"),
        ("2020-10-10 12:30", 0.5, "2020-10-10 16:30", "2020-10-10 15:48"),
        ("2020-10-03 10:00", 0.5, "2020-10-09 13:30", "2020-10-09 11:48"),
        ("2024-02-09 16:50", 0.5, "2024-02-18 13:20", "2024-02-18 11:38"),
        ("2026-01-04 16:50", 0.5, "2026-01-05 13:20", "2026-01-05 11:38"),
        ("2020-09-30 10:00", 5, "2020-10-14 17:00", "2020-10-13 17:00"),
        ("2020-01-23 15:00", 5, "2020-02-07 17:00", "2020-02-06 17:00"),
        ("2026-02-13 10:00", 5, "2026-02-27 17:00", "2026-02-26 17:00"),
        ("2026-01-01 10:00", 3, "2026-01-06 17:00", "2026-01-05 17:00"),
        ("2025-03-03 09:30", 20, "2025-03-31 17:00", "2025-03-25 17:00"),
    ],
)
def test_worked_table_of_due_and_yellow_times(accepted: str, limit: float, due: str, yellow: str) -> None:
    worked = line(accepted, limit)
    assert (text(worked.due), text(worked.yellow), worked.provisional) == (due, yellow, False)


@pytest.mark.parametrize(
    ("limit", "due"),
    [
        (40, "2020-07-14"),
        (52, "2020-07-30"),
        (64, "2020-08-17"),
        (78, "2020-09-04"),
        (82, "2020-09-10"),
        (100, "2020-10-12"),
    ],
)
def test_project_classes_accepted_on_the_day_of_the_policy(limit: float, due: str) -> None:
    assert text(line("2020-05-18 10:00", limit).due) == f"{due} 17:00"


def test_a_special_procedure_moves_due_by_its_3600_office_minutes() -> None:
    pause = ("2025-03-10 10:00", "2025-03-20 15:00")
    assert CALENDAR.counted(minute(pause[1])) - CALENDAR.counted(minute(pause[0])) == 3600
    worked = line("2025-03-03 09:30", 20, pauses=(pause,))
    assert (text(worked.due), text(worked.yellow)) == ("2025-04-14 14:00", "2025-04-08 14:00")


def test_overlapping_special_procedures_pause_only_once() -> None:
    parts = (("2025-03-10 10:00", "2025-03-18 09:00"), ("2025-03-12 09:00", "2025-03-20 15:00"))
    assert text(line("2025-03-03 09:30", 20, pauses=parts).due) == "2025-04-14 14:00"


def test_an_extension_of_ten_days_moves_due_to_mid_april() -> None:
    assert text(line("2025-03-03 09:30", 20, extension=10).due) == "2025-04-15 17:00"


def test_an_open_special_procedure_leaves_no_due_time() -> None:
    worked = line("2025-03-03 09:30", 20, pauses=(("2025-03-10 10:00", None),))
    assert (worked.due, worked.yellow) == (None, None)


def test_silence_of_five_working_days_after_receipt() -> None:
    assert text(line("2020-09-24 16:00", 5).due) == "2020-09-30 17:00"


def test_natural_days_roll_to_the_close_of_the_next_working_day() -> None:
    assert text(line("2020-09-24 16:00", 10, "2").due) == "2020-10-09 17:00"  # 10-04 lies in the National Day closure
    assert text(line("2020-09-01 16:00", 10, "2").due) == "2020-09-11 17:00"


def test_a_month_counts_thirty_natural_days() -> None:
    assert text(line("2020-08-10 09:00", 1, "5").due) == "2020-09-09 17:00"


def test_hours_and_minutes_run_in_office_time_from_the_moment() -> None:
    assert text(line("2020-09-25 16:30", 3, "3").due) == "2020-09-27 11:30"
    assert text(line("2020-09-25 11:50", 30, "4").due) == "2020-09-25 13:20"


@pytest.mark.parametrize(
    ("mode", "due"),
    [
        ("BUSINESS_MINUTES", "2020-09-27 13:20"),
        ("FIXED_4H", "2020-09-27 13:50"),
        ("SESSION", "2020-09-27 12:00"),
    ],
)
def test_three_readings_of_half_a_day(mode: str, due: str) -> None:
    read = clock.counting_in(counting(), mode)  # type: ignore[arg-type]
    assert text(clock.deadline(CALENDAR, minute("2020-09-25 16:50"), Limit(0.5), read).due) == due


def test_on_the_spot_lasts_to_the_close_of_the_day() -> None:
    assert text(line("2020-09-24 16:00", 0).due) == "2020-09-24 17:00"


def test_a_december_case_counts_into_the_unknown_year_provisionally() -> None:
    worked = line("2026-12-14 10:00", 20)
    assert text(worked.due) == "2027-01-12 17:00"  # 12-15 is day 1; 01-01 is the only fixed holiday in between
    assert worked.provisional
    assert worked.version == "2026-r1 2027-provisional"


def test_no_date_of_any_century_raises() -> None:
    for year in (1970, 1999, 2100, 9998):
        line(f"{year}-12-31 23:59", 100)
        line(f"{year}-12-31 23:59", 10_000, "2")


def test_the_days_listed_are_the_days_that_count() -> None:
    worked = line("2020-09-30 10:00", 5)
    days = [(str(date_of(day)), count) for day, count in clock.counted_days(CALENDAR, worked, ())]
    assert days == [
        ("2020-10-09", 420),
        ("2020-10-10", 420),
        ("2020-10-12", 420),
        ("2020-10-13", 420),
        ("2020-10-14", 420),
    ]


# --- the slow clock
# -------------------------------------------------------------------------------------------------


def slow_due(accepted: int, days: float, pauses: list[tuple[int, int]]) -> int:
    """Walks minute by minute and asks chinesecalendar for every day; knows nothing of the fast one."""
    from chinese_calendar import is_workday

    def office(at: int) -> bool:
        hour = at % DAY_MINUTES // 60
        on = date.fromordinal(at // DAY_MINUTES + date(1970, 1, 1).toordinal())
        return hour in (9, 10, 11, 13, 14, 15, 16) and is_workday(on)

    at = accepted if days < 1 else (accepted // DAY_MINUTES + 1) * DAY_MINUTES
    left = round(days * 420)
    while left:
        left -= office(at) and not any(start <= at < end for start, end in pauses)
        at += 1
    return at


START = minute("2019-12-20 00:00")


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 400 * DAY_MINUTES),
    st.sampled_from([0.5, 0.25, 1, 2, 3, 5, 7]),
    st.lists(st.tuples(st.integers(0, 20 * DAY_MINUTES), st.integers(1, 6 * DAY_MINUTES)), max_size=3),
)
def test_the_fast_clock_agrees_with_the_slow_one(offset: int, days: float, raw: list[tuple[int, int]]) -> None:
    accepted = START + offset
    pauses = [(accepted + begin, accepted + begin + length) for begin, length in raw]
    fast = clock.deadline(CALENDAR, accepted, Limit(days), counting(), clock.union(pauses))
    assert fast.due == slow_due(accepted, days, pauses)
