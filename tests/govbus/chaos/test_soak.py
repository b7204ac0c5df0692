"""What the soak says of a process that grows, of one that does not, and of one that jumps once."""

from __future__ import annotations

from govbus.chaos.soak import ROWS_A_CASE, Sample, flow_minutes, grown_of
from govbus.district.generator import make

HOUR = range(0, 3_600, 10)


def test_a_process_that_leaks_shows_by_how_much_an_hour() -> None:
    assert grown_of([Sample(at, 100 + 5 * at / 3_600, 0, 40) for at in HOUR])["mb_per_hour"] == 5.0


def test_what_is_given_back_every_minute_is_no_growth_and_hides_none() -> None:
    for leak, shown in ((0, 0.0), (5, 5.0)):
        held = [Sample(at, 100 + leak * at / 3_600 + (at % 60) / 60 * at / 600, 0, 40) for at in HOUR]
        assert grown_of(held)["mb_per_hour"] == shown


def test_growth_before_the_warm_up_is_over_does_not_count() -> None:
    assert grown_of([Sample(at, 100 + min(at, 900) / 10, 0, 40) for at in HOUR])["mb_per_hour"] == 0.0


def test_a_single_jump_does_not_count_as_a_slope() -> None:
    found = grown_of([Sample(at, 100 + 30 * (at == 2_000), 0, 40) for at in HOUR])
    assert (found["mb_per_hour"], found["floors_mb"]) == (0.0, " ".join(["100.0"] * 9))


def test_pages_of_libraries_are_told_from_its_own() -> None:
    found = grown_of([Sample(at, 100 + 5 * at / 3_600, 50 + 4 * at / 3_600, 40) for at in HOUR])
    assert (found["mb_per_hour"], found["own_mb_per_hour"]) == (5.0, 1.0)
    assert found["own_floors_mb"].split()[::8] == ["50.3", "50.9"]


def test_handles_that_are_never_closed_are_seen() -> None:
    assert grown_of([Sample(at, 100, 0, 40 + at // 600) for at in HOUR])["handles_more"] == 3


def test_a_year_has_more_rows_than_the_soak_counts_on() -> None:
    cases = 200
    rows = len(make(1, cases, 0).district.rows)
    assert flow_minutes(rows, rate=cases * ROWS_A_CASE / 60) > 1.0
