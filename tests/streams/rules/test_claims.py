"""Ratings that say a case took too long, against the clock (DOMAIN 5.4)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from msgspec import structs

from connectors.intake.calendar import calendar_row
from streams.rules import claims, judge
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.claims import Claim
from streams.rules.judge import References, fold
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions
from streams.rules.state import CaseState

ITEM = "11430903MBDEM0138T4000715002000"
CALENDAR = Publication.of({**calendar_row(2020, occurred_at=0, department="HS-XZSPJ"), "received_at": 0})


def ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return epoch_ms(day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute)


def event(kind: str, at: str) -> CaseEvent:
    return CaseEvent(kind, kind, "430903", "HS-ZRZYJ", ITEM, ms(at), ms(at))


def known(*made: Claim) -> References:
    item = {"event_type": "item.published", "item_version": 1, "occurred_at": 0, "promise_limit": 5,
            "promise_unit_code": "1", "effective_on": date(2004, 1, 1)}  # fmt: skip
    return References(CalendarHistory([CALENDAR]), {ITEM: item_versions([item])}, {"C": made})


def claim(name: str, at: str, revision: int = 0, too_slow: bool = True, assess_no: int = 1) -> Claim:
    return Claim(name, 1, assess_no, revision, too_slow, ms(at))


ACCEPTED, IN_TIME, LATE = (
    event("accepted", "2020-10-12 10:00"), event("decided", "2020-10-19 17:00"), event("decided", "2020-10-20 10:00"),
)  # fmt: skip


def found(events: list[CaseEvent], references: References) -> list[tuple[Any, ...]]:
    state, _ = fold(CaseState("C", ()), events, references, ms("2020-12-01 09:00"))
    return [
        (judge.local_text(a.issued_at), judge.local_text(a.revoked_at), a.revoked_reason, a.evidence)
        for a in state.alerts
        if a.rule_id == "tag_contradicts_clock"
    ]


def test_too_slow_said_of_a_case_that_was_on_time_is_found_and_of_a_late_one_is_not() -> None:
    said = known(claim("r1", "2020-10-21 09:00"))
    assert found([ACCEPTED, IN_TIME], said) == [("2020-10-21 09:00", "", "", ("r1",))]
    assert found([ACCEPTED, LATE], said) == []
    assert found([ACCEPTED], said) == []  # nobody knows yet
    assert found([ACCEPTED, event("withdrawn", "2020-10-13 09:00")], said) == []  # it is in no rate


def test_a_rating_that_is_known_before_the_decision_is_found_with_the_decision() -> None:
    assert found([ACCEPTED, IN_TIME], known(claim("r1", "2020-10-13 09:00"))) == [
        ("2020-10-19 17:00", "", "", ("r1",))
    ]


def test_a_corrected_rating_takes_the_finding_back_whichever_revision_came_first() -> None:
    first, mended = claim("r1", "2020-10-21 09:00"), claim("r2", "2020-10-23 09:00", 1, too_slow=False)
    assert found([ACCEPTED, IN_TIME], known(first, mended)) == [
        ("2020-10-21 09:00", "2020-10-23 09:00", "rating_corrected", ("r1",))
    ]
    early = claim("r2", "2020-10-20 09:00", 1, too_slow=False)
    assert found([ACCEPTED, IN_TIME], known(early, first)) == []


def test_each_rating_of_a_visit_claims_for_itself() -> None:
    again = claim("r3", "2020-10-25 09:00", assess_no=2)
    assert len(found([ACCEPTED, IN_TIME], known(claim("r1", "2020-10-21 09:00"), again))) == 2


@pytest.mark.parametrize(
    ("tags", "tag_set", "operation", "expected"),
    [
        (["110"], "platform.eval-detail", "I", True),
        (["113", "209"], "platform.eval-detail", "U", True),
        (["210"], "platform.eval-detail", "I", False),
        (["110"], "", "I", False),
        (["110"], "platform.eval-detail", "D", False),
    ],
)
def test_which_ratings_say_too_slow(tags: list[str], tag_set: str, operation: str, expected: bool) -> None:
    record = {"tags": tags, "tag_set": tag_set, "operation": operation, "revision": 0}
    assert claims.too_slow(record) is expected
    assert claims.matters({**record, "revision": 1})


@pytest.mark.parametrize("cut", range(4))
def test_a_claim_that_comes_to_the_judge_late_gives_the_same_finding(cut: int) -> None:
    """The case is judged in pieces without the claim, then marked and judged again with it."""
    events, said = [ACCEPTED, IN_TIME], known(claim("r1", "2020-10-13 09:00"), claim("r2", "2020-10-21 09:00", 1))
    state = CaseState("C", ())
    for place, one in enumerate(events):
        state, _ = fold(state, [one], said if place >= cut else known(), 0)
    state, _ = fold(state, [], known(), ms("2020-10-22 09:00"))
    state, _ = fold(state, [], said, ms("2020-12-01 09:00"))
    whole, _ = fold(CaseState("C", ()), events, said, ms("2020-12-01 09:00"))
    assert structs.replace(state, spoken={}) == structs.replace(whole, spoken={})
