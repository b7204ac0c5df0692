"""The notation of examples: times with their offset, days, hex."""

from __future__ import annotations

import datetime

import pytest

from schemas.readable import from_json, to_json
from schemas.topics import CALENDAR, DEADLETTER, LICENCE, RATING


def test_a_time_is_milliseconds_utc_whatever_its_offset() -> None:
    at = 1_600_657_200_000  # 2020-09-21 11:00 in Shanghai

    assert from_json(RATING, {"occurred_at": "2020-09-21T11:00:00+08:00"}) == {"occurred_at": at}
    assert from_json(RATING, {"occurred_at": "2020-09-21T03:00:00+00:00"}) == {"occurred_at": at}
    assert from_json(RATING, {"occurred_at": "2020-09-21T11:00:00.007+08:00"}) == {"occurred_at": at + 7}
    assert to_json(RATING, {"occurred_at": at + 7}) == {"occurred_at": "2020-09-21T11:00:00.007+08:00"}


def test_a_time_without_offset_is_not_guessed() -> None:
    with pytest.raises(TypeError):
        from_json(RATING, {"occurred_at": "2020-09-21T11:00:00"})


def test_days_nested_in_arrays_are_dates() -> None:
    written = {"days": [{"day": "2020-10-10", "working": True, "name": "调休"}]}
    record = {"days": [{"day": datetime.date(2020, 10, 10), "working": True, "name": "调休"}]}

    assert from_json(CALENDAR, written) == record
    assert to_json(CALENDAR, record) == written


def test_bytes_are_hex_and_absent_values_stay_absent() -> None:
    assert from_json(DEADLETTER, {"original": "00ff"}) == {"original": b"\x00\xff"}
    assert to_json(DEADLETTER, {"original": b"\x00\xff"}) == {"original": "00ff"}
    assert from_json(LICENCE, {"valid_to_on": None, "colour": 1}) == {"valid_to_on": None, "colour": 1}
