"""Calendars as they became known: versions, regions, unknown years, office hours."""

from __future__ import annotations

import tracemalloc
from datetime import date, timedelta

import pytest

from connectors.intake.calendar import calendar_row, calendar_rows
from streams.rules.calendar import CalendarHistory, Publication, changed, day_of

ROWS = [{**row, "received_at": 10} for row in calendar_rows(occurred_at=0, department="HS-XZSPJ")]
SUMMER = [{"from_on": date(2020, 6, 1), "to_on": date(2020, 9, 30), "sessions": [{"opens": 540, "closes": 720}]}]


def history(*more: dict[str, object]) -> CalendarHistory:
    return CalendarHistory(Publication.of(row) for row in (*ROWS, *more))


@pytest.mark.parametrize(
    ("year", "working_days"),
    [(2019, 250), (2020, 249), (2021, 250), (2022, 249), (2023, 249), (2024, 251), (2025, 248), (2026, 248)],
)
def test_working_days_of_published_years(year: int, working_days: int) -> None:
    calendar = history().known_at(10, "430903")
    first = date(year, 1, 1)
    days = (first + timedelta(n) for n in range((date(year + 1, 1, 1) - first).days))
    assert sum(calendar.working(day_of(day)) for day in days) == working_days


def test_every_seeded_day_agrees_with_the_package() -> None:
    from chinese_calendar import is_workday

    calendar = history().known_at(10, "430903")
    days = [date(2004, 1, 1) + timedelta(n) for n in range((date(2027, 1, 1) - date(2004, 1, 1)).days)]
    assert [d for d in days if calendar.working(day_of(d)) != is_workday(d)] == []


def test_an_unknown_year_is_monday_to_friday_without_fixed_holidays() -> None:
    calendar = history().known_at(10, "430903")
    assert not calendar.working(day_of(date(2027, 1, 1)))  # Friday, New Year
    assert not calendar.working(day_of(date(2027, 10, 1)))  # Friday, National Day
    assert calendar.working(day_of(date(2027, 10, 4)))  # Monday: the closure is not announced yet
    assert not calendar.working(day_of(date(2027, 10, 9)))  # Saturday: no make-up day is known
    assert calendar.working(day_of(date(2001, 5, 2)))  # Wednesday: Labour Day has two days since 2025
    assert not calendar.working(day_of(date(2028, 5, 2)))  # Tuesday


def test_nothing_is_known_before_it_was_published() -> None:
    noon = day_of(date(2020, 10, 9)) * 1440
    assert history().known_at(9, "430903").provisional(noon, noon)
    assert not history().known_at(10, "430903").provisional(noon, noon)


def test_a_revision_holds_from_its_receipt_on_and_a_lower_one_never() -> None:
    revised = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", revision=3), "received_at": 20}
    revised["days"] = [*revised["days"], {"day": date(2020, 7, 1), "working": False, "name": ""}]
    stale = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", revision=2), "received_at": 30}
    both = history(revised, stale)
    july = day_of(date(2020, 7, 1))
    assert [both.known_at(at, "430903").working(july) for at in (10, 20, 30)] == [True, False, False]


def test_a_district_with_its_own_calendar_leaves_the_nations() -> None:
    own = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", region="430903"), "received_at": 20}
    own["days"] = [*own["days"], {"day": date(2020, 7, 1), "working": False, "name": ""}]
    july = day_of(date(2020, 7, 1))
    assert not history(own).known_at(20, "430903").working(july)
    assert history(own).known_at(20, "430902").working(july)


def test_a_township_goes_by_its_districts_calendar() -> None:
    own = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", region="430903"), "received_at": 20}
    own["days"] = [*own["days"], {"day": date(2020, 7, 1), "working": False, "name": ""}]
    assert not history(own).known_at(20, "430903101").working(day_of(date(2020, 7, 1)))
    assert history(own).changes("430903101") == (10, 20)


def test_own_hours_without_own_days_keep_the_nations_days() -> None:
    own = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", region="430903"), "received_at": 20}
    calendar = history({**own, "days": [], "hours": SUMMER}).known_at(20, "430903")
    assert calendar.length(day_of(date(2020, 7, 1))) == 180
    assert calendar.length(day_of(date(2020, 10, 9))) == 420
    assert calendar.working(day_of(date(2020, 9, 27)))  # the nation's make-up Sunday


def test_office_minutes_of_a_day_are_reached_at_its_close() -> None:
    calendar = history().known_at(10, "430903")
    noon = day_of(date(2020, 9, 25)) * 1440 + 12 * 60
    assert calendar.reached(calendar.counted(noon)) == noon
    assert calendar.counted(noon + 60) == calendar.counted(noon)


# --- what a revision changes


def revision(number: int, *off: date, received: int = 20, **more: object) -> dict[str, object]:
    """2020 with these days off besides."""
    row = {**calendar_row(2020, occurred_at=0, department="HS-XZSPJ", revision=number), "received_at": received, **more}
    row["days"] = [*row["days"], *({"day": day, "working": False, "name": ""} for day in off)]
    return row


def minutes(day: date) -> int:
    return day_of(day) * 1440 + 600


def test_a_revision_is_named_only_by_what_counts_a_day_that_it_changed() -> None:
    july, august = date(2020, 7, 1), date(2020, 8, 3)
    calendar = history(revision(2, july), revision(3, july, august)).known_at(20, "430903")
    spans = [(date(2020, 3, 2), date(2020, 6, 30)), (date(2020, 6, 1), july), (date(2020, 7, 2), date(2020, 9, 1))]
    assert [calendar.version(minutes(a), minutes(b)) for a, b in spans] == ["2020-r1", "2020-r2", "2020-r3"]


def test_a_revision_that_gives_a_day_back_is_named_by_what_counts_it() -> None:
    calendar = history(revision(2, date(2020, 7, 1)), revision(3)).known_at(20, "430903")
    assert calendar.version(minutes(date(2020, 6, 1)), minutes(date(2020, 7, 1))) == "2020-r3"
    assert calendar.version(minutes(date(2020, 6, 1)), minutes(date(2020, 6, 30))) == "2020-r1"


def test_the_days_that_a_revision_changes() -> None:
    first = Publication.of(ROWS[16])
    second = Publication.of(revision(2, date(2020, 7, 1), date(2020, 7, 2), date(2020, 8, 3)))
    july, august = day_of(date(2020, 7, 1)), day_of(date(2020, 8, 3))
    assert changed(first, second) == ((july, july + 1), (august, august))


def test_summer_hours_change_the_summers_days_and_the_first_hours_of_a_year_all_of_it() -> None:
    first = Publication.of(ROWS[16])
    summer = Publication.of(revision(2, hours=[*ROWS[16]["hours"], *SUMMER]))
    assert changed(first, summer) == ((day_of(date(2020, 6, 1)), day_of(date(2020, 9, 30))),)
    bare = Publication.of({**ROWS[16], "hours": []})
    assert changed(bare, first) == ((day_of(date(2020, 1, 1)), day_of(date(2020, 12, 31))),)


def test_a_calendar_shares_the_years_that_others_have_too() -> None:
    """One is kept for every set of publications, and a year's working days are amended."""
    history().known_at(10, "430903")
    tracemalloc.start()
    try:
        kept = history(revision(2, date(2020, 7, 1))).known_at(20, "430903")
        took, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.working(day_of(date(2020, 7, 2)))
    assert took < 100_000
