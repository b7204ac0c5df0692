"""Where the online and the offline copy of an item differ, and versions that no case may be judged by."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pytest

from streams.rules import define, judge


def version(number: int, received: int, *elements: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    """A version with copies of elements as (element, channel, digest)."""
    return {
        "event_id": f"v{number}", "event_type": "item.published", "item_code": "X", "item_version": number,
        "received_at": received, "occurred_at": received, "promise_limit": 5.0, "promise_unit_code": "1",
        "effective_on": date(2020, 1, 1),
        "elements": [{"element": e, "channel": c, "digest": d} for e, c, d in elements], **more,
    }  # fmt: skip


FEES = (("fees", "ONLINE", "c"), ("fees", "OFFLINE", "c"))
DIFFERENT = (("materials", "ONLINE", "a"), ("materials", "OFFLINE", "b"), *FEES)
SAME = (("materials", "ONLINE", "a"), ("materials", "OFFLINE", "a"))


def found(*events: dict[str, Any]) -> list[tuple[str, int, int | None, tuple[str, ...]]]:
    return [(a.subject, a.issued_at, a.revoked_at, a.evidence) for a in define.findings("X", events)]


def test_an_element_that_differs_online_and_offline_is_found_and_one_that_agrees_is_not() -> None:
    assert found(version(1, 100, *DIFFERENT)) == [("materials", 100, None, ("v1",))]


def test_one_copy_alone_differs_from_nothing() -> None:
    assert found(version(1, 100, ("materials", "ONLINE", "a"))) == []


def test_a_version_in_which_they_agree_takes_it_back_and_one_in_which_they_do_not_leaves_it() -> None:
    first, second, third = version(1, 100, *DIFFERENT), version(2, 200, *DIFFERENT), version(3, 300, *SAME)
    assert found(first, second) == [("materials", 100, None, ("v1",))]
    (alert,) = define.findings("X", [first, second, third])
    assert (alert.revoked_at, alert.revoked_reason) == (300, "item_revised")


def test_a_withdrawn_version_has_no_copies() -> None:
    gone = {**version(1, 200), "event_type": "item.withdrawn", "event_id": "w1"}
    assert found(version(1, 100, *DIFFERENT), gone) == [("materials", 100, 200, ("v1",))]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_versions_are_given_does_not_matter(seed: int) -> None:
    events = [version(1, 100, *DIFFERENT), version(2, 50, *SAME), version(3, 300, *DIFFERENT)]
    random.Random(seed).shuffle(events)
    assert found(*events) == [("materials", 300, None, ("v3",))]


def test_the_sentence_names_the_item_and_the_element() -> None:
    about = judge.About("430903", "HS-ZJJ", "X", 100)
    (decision,) = judge.differences({}, define.findings("X", [version(1, 100, *DIFFERENT)]), about, 100)
    record = judge.alert_record(define.owner("X"), decision)
    assert record["summary"] == "监察发现：事项 item/X 的“materials”线上线下不一致，请核查。"


@pytest.mark.parametrize(
    ("promise", "unit", "statutory", "statutory_unit", "sound"),
    [
        (30.0, "1", 20.0, "1", False),
        (20.0, "1", 20.0, "1", True),
        (45.0, "2", 1.0, "5", False),  # a month is 30 natural days
        (30.0, "2", 1.0, "5", True),
        (90.0, "4", 1.0, "3", False),  # minutes and hours
        (30.0, "2", 20.0, "1", True),  # natural and working days cannot be compared
        (-1.0, "1", None, "", False),
    ],
)
def test_30_a_promise_longer_than_the_law_allows_is_no_version_to_judge_by(
    promise: float, unit: str, statutory: float | None, statutory_unit: str, sound: bool
) -> None:
    one = version(1, 100, promise_limit=promise, promise_unit_code=unit, statutory_limit=statutory,
                  statutory_unit_code=statutory_unit)  # fmt: skip
    assert (define.fault(one) is None) is sound
