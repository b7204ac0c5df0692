"""Steps, delivery, promises and responsibility: the clocks beside the handling clock, and who answers for them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest

from connectors.intake.calendar import calendar_rows
from streams.rules import judge
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.judge import References, fold
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions
from streams.rules.state import CaseState

ITEM = "11430903MBDEM0138T4000115002000"
CALENDARS = CalendarHistory(
    Publication.of({**row, "received_at": 0})
    for row in calendar_rows(2019, 2021, occurred_at=0, department="HS-XZSPJ")
)
STEPS = (("受理审核", 1.0), ("现场核查", 2.0), ("决定", 1.0))


def ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return epoch_ms(day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute)


def event(kind: str, at: str, received: str | None = None, **more: Any) -> CaseEvent:
    department = more.pop("department", "HS-ZRZYJ")
    name = f"{kind}/{more.get('event_no', 1)}"
    return CaseEvent(name, kind, "430903", department, ITEM, ms(at), ms(received or at), **more)


def known(promise: float = 5, kind: str = "07", steps: tuple[tuple[str, float], ...] = ()) -> References:
    item = {
        "event_type": "item.published", "item_version": 1, "occurred_at": 0, "promise_limit": promise,
        "promise_unit_code": "1", "effective_on": date(2004, 1, 1), "item_type_code": kind,
        "steps": [{"step_name": name, "step_limit": limit, "step_unit_code": "1"} for name, limit in steps],
    }  # fmt: skip
    return References(CALENDARS, {ITEM: item_versions([item])})


def told(events: list[CaseEvent], references: References, now: str) -> CaseState:
    return fold(CaseState("CASE-1", ()), events, references, ms(now))[0]


def cards(state: CaseState) -> list[tuple[str, str, str]]:
    return [(a.rule_id, a.subject, judge.local_text(a.issued_at)) for a in state.alerts if a.kind == "CARD"]


def findings(state: CaseState) -> list[tuple[str, str]]:
    return [(a.rule_id, judge.local_text(a.issued_at)) for a in state.alerts if a.kind == "FINDING"]


ACCEPTED = event("accepted", "2020-10-12 10:00")
GRANTED = event("decided", "2020-10-14 10:00", result_set="province.result-newer", result="0")

# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_step_over_its_limit_is_a_yellow_card_though_the_case_is_in_time() -> None:
    done = event("step_completed", "2020-10-14 09:00", step="受理审核")  # one working day: Tuesday 10-13 17:00
    state = told([ACCEPTED, done], known(20, steps=STEPS), "2020-10-14 10:00")
    assert cards(state) == [("HS-CARD-STEP", "受理审核", "2020-10-13 17:01")]
    assert state.alerts[0].colour == "YELLOW"
    assert state.alerts[0].evidence == ("accepted/1",)


def test_a_step_completed_in_its_last_minute_is_in_time_and_the_next_one_begins_there() -> None:
    done = event("step_completed", "2020-10-13 17:00", step="受理审核")
    state = told([ACCEPTED, done], known(20, steps=STEPS), "2020-10-16 09:00")
    assert cards(state) == [("HS-CARD-STEP", "现场核查", "2020-10-15 17:01")]
    assert state.alerts[0].evidence == ("step_completed/1",)


def test_a_later_step_ends_those_that_were_not_told_before_it() -> None:
    done = event("step_completed", "2020-10-13 16:00", step="现场核查")
    assert cards(told([ACCEPTED, done], known(20, steps=STEPS), "2020-10-14 17:00")) == []


def test_a_special_procedure_pauses_the_step_it_falls_into() -> None:
    pause = [
        event("special_started", "2020-10-13 10:00", special="EXPERT"),
        event("special_ended", "2020-10-15 10:00", special="EXPERT"),
    ]
    state = told([ACCEPTED, *pause], known(20, steps=STEPS), "2020-10-15 17:00")
    assert cards(state) == []
    assert cards(fold(state, [], known(20, steps=STEPS), ms("2020-10-15 17:01"))[0]) == [
        ("HS-CARD-STEP", "受理审核", "2020-10-15 17:01")
    ]


def test_a_decision_ends_the_step_that_runs() -> None:
    assert cards(told([ACCEPTED, GRANTED], known(20, steps=(("全部", 2.0),)), "2020-12-01 09:00")) == []


# --- delivery ---------------------------------------------------------------------------------------------------------


def test_a_licence_is_handed_over_within_ten_working_days_of_the_grant() -> None:
    state = told([ACCEPTED, GRANTED], known(kind="01"), "2020-10-28 17:00")
    assert cards(state) == [("HS-CARD-DELIVERY-Y", "", "2020-10-26 17:00")]
    state = told([ACCEPTED, GRANTED], known(kind="01"), "2020-10-28 17:01")
    assert cards(state)[1:] == [("HS-CARD-DELIVERY-R", "", "2020-10-28 17:01")]
    assert judge.local_text(state.alerts[1].due_at) == "2020-10-28 17:00"
    assert state.alerts[1].evidence == ("decided/1",)


def test_a_delivery_in_the_last_minute_is_in_time_and_the_making_of_the_licence_does_not_count() -> None:
    made = event("certified", "2020-10-15 10:00")
    over = event("delivered", "2020-10-28 17:00")
    state = told([ACCEPTED, GRANTED, made, over], known(kind="01"), "2020-12-01 09:00")
    assert [c[0] for c in cards(state)] == ["HS-CARD-DELIVERY-Y"]
    late = event("delivered", "2020-10-28 17:01")
    state = told([ACCEPTED, GRANTED, made, late], known(kind="01"), "2020-12-01 09:00")
    assert [c[0] for c in cards(state)] == ["HS-CARD-DELIVERY-Y", "HS-CARD-DELIVERY-R"]


def test_an_item_that_is_no_licence_and_a_grant_without_paper_have_no_delivery_clock() -> None:
    plain = event("decided", "2020-10-14 10:00", result_set="province.result-older", result="6")
    denied = event("decided", "2020-10-14 10:00", result_set="province.result-newer", result="1")
    assert cards(told([ACCEPTED, GRANTED], known(kind="07"), "2020-12-01 09:00")) == []
    assert cards(told([ACCEPTED, plain], known(kind="01"), "2020-12-01 09:00")) == []
    assert cards(told([ACCEPTED, denied], known(kind="01"), "2020-12-01 09:00")) == []


@pytest.mark.parametrize("told_as", [{}, {"result_set": "province.result-newer"}, {"result": "1"}])
def test_a_decision_that_does_not_say_its_result_ends_the_case_and_starts_no_delivery_clock(
    told_as: dict[str, str],
) -> None:
    state = told([ACCEPTED, event("decided", "2020-10-14 10:00", **told_as)], known(kind="01"), "2020-12-01 09:00")
    assert (cards(state), state.status, state.on_time) == ([], "GRANTED", True)


def test_a_red_card_for_the_decision_does_not_swallow_the_warning_about_the_delivery() -> None:
    late = event("decided", "2020-10-20 10:00", result_set="province.result-newer", result="0")  # due 10-19 17:00
    state = told([ACCEPTED, late], known(kind="01"), "2020-11-01 09:00")
    assert [c[0] for c in cards(state)] == ["HS-CARD-Y", "HS-CARD-R", "HS-CARD-DELIVERY-Y"]


# --- accepted on a promise --------------------------------------------------------------------------------------------


def promised(kind: str) -> CaseEvent:
    return event("accepted", "2020-10-12 10:00", acceptance=kind, verify_by=ms("2020-11-10 17:00"))


@pytest.mark.parametrize("kind", ["PROMISE", "DEFERRED"])
def test_a_case_accepted_on_a_promise_is_verified_in_time_or_found(kind: str) -> None:
    events = [promised(kind), GRANTED]
    assert findings(told(events, known(), "2020-11-10 17:00")) == []
    state = told(events, known(), "2020-11-11 09:00")
    assert findings(state) == [("promise_unverified", "2020-11-10 17:00")]
    kept = event("verified", "2020-11-10 16:59", "2020-11-12 09:00", verification="KEPT")
    state, _ = fold(state, [kept], known(), ms("2020-11-13 09:00"))
    assert [a.revoked_at for a in state.alerts] == [ms("2020-11-12 09:00")]


def test_a_promise_verified_too_late_was_not_verified_in_time() -> None:
    late = event("verified", "2020-11-10 17:01", verification="KEPT")
    state = told([promised("PROMISE"), GRANTED, late], known(), "2020-12-01 09:00")
    assert findings(state) == [("promise_unverified", "2020-11-10 17:00")]
    assert state.alerts[0].revoked_at is None


def test_a_broken_promise_is_found_when_it_is_told() -> None:
    broken = event("verified", "2020-11-02 10:00", verification="BROKEN")
    assert findings(told([promised("PROMISE"), GRANTED, broken], known(), "2020-12-01 09:00")) == [
        ("promise_broken", "2020-11-02 10:00")
    ]


def test_a_promise_of_a_case_that_was_withdrawn_needs_no_verification() -> None:
    events = [promised("PROMISE"), event("withdrawn", "2020-10-13 10:00")]
    assert findings(told(events, known(), "2020-12-01 09:00")) == []


# --- who is measured --------------------------------------------------------------------------------------------------


def test_a_case_accepted_by_another_units_window_is_measured_by_the_responsible_department() -> None:
    window = event("accepted", "2020-10-12 10:00", department="HS-ZWFWZX", responsible="HS-ZRZYJ")
    assert told([window], known(), "2020-10-12 11:00").department == "HS-ZRZYJ"
    alone = event("accepted", "2020-10-12 10:00", department="HS-ZWFWZX")
    assert told([alone], known(), "2020-10-12 11:00").department == "HS-ZWFWZX"


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_denial_and_a_return_without_reason_are_oversights_business() -> None:
    newer = "province.result-newer"
    for result in ("1", "5"):
        no_word = event("decided", "2020-10-13 10:00", result_set=newer, result=result, reasoned=False)
        assert findings(told([ACCEPTED, no_word], known(), "2020-10-14 09:00")) == [
            ("refusal_without_reason", "2020-10-13 10:00")
        ]
