"""Times as departments write them (DOMAIN §3.4): naive ones are Asia/Shanghai."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from connectors.times import day, moment

CLOSING = 1_601_023_800_000  # Fri 2020-09-25 16:50:00 in Shanghai, 08:50:00 UTC


@pytest.mark.parametrize(
    "text",
    [
        "2020-09-25 16:50:00",
        "2020-09-25T16:50:00",
        "2020-09-25 16:50",
        "2020/9/25 16:50",
        "2020/09/25 16:50:00",
        "20200925T165000",
        "20200925165000",
        "2020-09-25T16:50:00+08:00",
        "2020-09-25T08:50:00Z",
        "2020-09-25T08:50:00.000z",
        " 2020-09-25 16:50:00 ",
        "1601023800000",
        1_601_023_800_000,
        datetime(2020, 9, 25, 8, 50, tzinfo=UTC),
        datetime(2020, 9, 25, 16, 50),  # noqa: DTZ001 - as a spreadsheet holds it
    ],
)
def test_every_way_to_write_one_moment_means_the_same_milliseconds(text: object) -> None:
    assert moment(text) == CLOSING


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2020-02-30 10:00:00", "2020-09-25", "25/09/2020 16:50", "2020/2/30 10:00", "2020/9/25",
     "2020/9/25 16", "20/9/25 16:50", "20200925", True, None, 1.5,
     20200925165000],
)
def test_what_is_not_a_moment_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text)


@pytest.mark.parametrize(
    "text", ["2020-09-25", "2020/9/25", "20200925", date(2020, 9, 25), datetime(2020, 9, 25, 7, tzinfo=UTC)]
)
def test_every_way_to_write_one_day_means_the_same_day(text: object) -> None:
    assert day(text) == date(2020, 9, 25)


@pytest.mark.parametrize(
    "text",
    ["长期", "99991231", "9999-12-31", "9999/12/31", date(9999, 12, 31), datetime(9999, 12, 31)],  # noqa: DTZ001 - of a spreadsheet
)
def test_a_validity_without_end_is_no_day(text: object) -> None:
    assert day(text) is None


@pytest.mark.parametrize(
    "text", ["2020-02-30", "soon", 20200925, "2020-9-5", "2020/2/30", "2020/9/25 16:50", "5/9/2020"]
)
def test_what_is_not_a_day_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        day(text)
