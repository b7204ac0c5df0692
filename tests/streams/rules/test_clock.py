"""Deadlines: every row of DOMAIN 3.7 and 4.1 by hand, and a slow clock that counts minute by minute."""

from __future__ import annotations

import importlib.util
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("accepted", "amount", "unit", "yellow", "due"),
    [
        ("2025-09-26 09:00", 7, "2", "2025-09-30 17:00", "2025-10-09 17:00"),  # not amid the National Day closure
        ("2025-03-06 09:00", 3, "2", "2025-03-07 17:00", "2025-03-10 17:00"),  # not on the Sunday before
        ("2025-03-03 09:00", 14, "3", "2025-03-03 17:00", "2025-03-04 17:00"),  # two office days in hours
        ("2025-03-03 09:00", 7, "3", "2025-03-03 15:36", "2025-03-03 17:00"),  # one: the share alone
    ],
)
def test_of_any_limit_over_a_day_a_working_day_is_left_at_the_warning(
    accepted: str, amount: float, unit: str, yellow: str, due: str
) -> None:
    counted = line(accepted, amount, unit)
    assert (text(counted.yellow), text(counted.due)) == (yellow, due)


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


# --- DOMAIN 5.7: the clocks of a bad rating, on the same calendar


@pytest.mark.parametrize(
    ("raised", "contact", "rectify"),
    [
        ("2020-09-21 11:00", "2020-09-22 17:00", "2020-10-16 17:00"),
        ("2020-09-26 11:00", "2020-09-27 17:00", "2020-10-22 17:00"),
    ],
)
def test_a_bad_rating_is_due_for_contact_and_rectification(raised: str, contact: str, rectify: str) -> None:
    assert (text(line(raised, 1).due), text(line(raised, 15).due)) == (contact, rectify)


def test_34_a_rectification_in_the_last_minute_is_in_time_and_one_on_monday_is_not() -> None:
    due = line("2020-09-21 11:00", 15).due
    assert due is not None
    assert minute("2020-10-16 16:59") <= due < minute("2020-10-19 09:30")


# --- what the slow clock found


def test_a_pause_that_begins_after_a_natural_day_limit_has_ended_does_not_move_it() -> None:
    pause = ("2020-09-11 17:30", "2020-09-20 10:00")
    assert text(line("2020-09-01 16:00", 10, "2", (pause,)).due) == "2020-09-11 17:00"


def test_a_natural_day_limit_that_ends_on_a_day_off_does_not_end_in_a_pause_of_the_working_day_after() -> None:
    pause = ("2020-09-13 10:00", "2020-09-15 15:00")  # the limit ends on Saturday 09-12, its Monday is paused
    assert text(line("2020-09-02 16:00", 10, "2").due) == "2020-09-14 17:00"
    assert text(line("2020-09-02 16:00", 10, "2", (pause,)).due) == "2020-09-15 17:00"


@pytest.mark.parametrize("unit", ["1", "2", "3", "4", "5"])
def test_on_the_spot_is_until_the_office_closes_in_any_unit(unit: str) -> None:
    assert text(line("2020-09-24 16:00", 0, unit).due) == "2020-09-24 17:00"


def test_office_hours_of_a_year_without_its_holidays_leave_it_provisional() -> None:
    hours = {"from_on": date(2027, 1, 1), "to_on": None, "sessions": [{"opens": 540, "closes": 720}]}
    own = {**ROWS[0], "region": "430903", "year": 2027, "days": [], "hours": [hours]}
    calendar = CalendarHistory(Publication.of(row) for row in (*ROWS, own)).known_at(0, "430903")
    worked = line("2026-12-30 10:00", 3, calendar=calendar)
    assert (text(worked.due), worked.provisional) == ("2027-01-05 12:00", True)


# --- the calendar as it was known


def test_before_the_emergency_notice_of_2020_a_five_day_case_was_due_on_the_fifth_of_february() -> None:
    announced = {d["day"]: d for d in ROWS[16]["days"] if d["day"] != date(2020, 1, 31)}
    announced[date(2020, 2, 1)] = {"day": date(2020, 2, 1), "working": True, "name": "Spring Festival"}
    known = CalendarHistory([Publication.of({**ROWS[16], "days": list(announced.values())})]).known_at(0, "430903")
    worked = line("2020-01-23 15:00", 5, calendar=known)
    assert (text(worked.due), text(worked.yellow)) == ("2020-02-05 17:00", "2020-02-04 17:00")


# --- the slow clock: tests/streams/rules/slow_clock.py, 100,000 cases; here a slice


def slow_clock() -> Any:
    """The program beside this file."""
    name = Path(__file__).with_name("slow_clock.py")
    spec = importlib.util.spec_from_file_location("slow_clock", name)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["slow_clock"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [2020, 2026, 2027])
def test_the_clock_agrees_with_one_that_counts_minute_by_minute(seed: int) -> None:
    assert list(slow_clock().differences(100, seed)) == []
