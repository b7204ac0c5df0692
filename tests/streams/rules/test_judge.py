"""The narratives of DOMAIN 10 that concern cases, and the proof that a judgement depends on the log alone."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from datetime import date, datetime
from itertools import combinations, groupby, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json, structs

from connectors.intake.calendar import calendar_row, calendar_rows
from streams.rules import judge
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.cards import Alert, clock_of
from streams.rules.judge import Decision, References, fold
from streams.rules.lifecycle import RANK, CaseEvent
from streams.rules.limits import item_versions
from streams.rules.state import CaseState

ITEM = "11430903MBDEM0138T4000715002000"
HOUR = 3_600_000
ROWS = [{**row, "received_at": 0} for row in calendar_rows(occurred_at=0, department="HS-XZSPJ")]
PUBLISHED = [Publication.of(row) for row in ROWS]


def ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return epoch_ms(day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute)


def item(promise: float, statutory: float | None = None, rule: str = "", **more: Any) -> dict[str, Any]:
    return {
        "event_type": "item.published",
        "item_version": 1,
        "occurred_at": 0,
        "promise_limit": promise,
        "promise_unit_code": "1",
        "statutory_limit": statutory,
        "statutory_unit_code": "1",
        "limit_rule": rule,
        "effective_on": date(2004, 1, 1),
        "cancelled_on": None,
        **more,
    }


def references(*items: dict[str, Any], calendars: list[Publication] | None = None) -> References:
    return References(CalendarHistory(PUBLISHED if calendars is None else calendars), {ITEM: item_versions(items)})


def event(kind: str, at: str, received: str | None = None, **more: Any) -> CaseEvent:
    number = more.get("event_no", 1)
    return CaseEvent(
        str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}/{number}/{at}")),
        kind,
        "430903",
        "HS-ZRZYJ",
        ITEM,
        ms(at),
        ms(received or at),
        **more,
    )


def told(events: list[CaseEvent], known: References, now: str) -> tuple[CaseState, tuple[Decision, ...]]:
    return fold(CaseState("CASE-1", ()), events, known, ms(now))


def cards(state: CaseState) -> list[tuple[str, str, str | None, str]]:
    """(colour, issued, revoked, reason) of every card, findings left out."""
    return [
        (
            a.colour,
            judge.local_text(a.issued_at),
            None if a.revoked_at is None else judge.local_text(a.revoked_at),
            a.revoked_reason,
        )
        for a in state.alerts
        if a.kind == "CARD"
    ]


def findings(state: CaseState) -> list[str]:
    return [a.rule_id for a in state.alerts if a.kind == "FINDING" and a.revoked_at is None]


def due(state: CaseState) -> str:
    return judge.local_text(state.due_at)


# --- narratives
# -----------------------------------------------------------------------------------------------------

START_UP = [event("submitted", "2020-09-25 16:50"), event("accepted", "2020-09-25 16:50")]


def test_01_a_start_up_is_on_time_at_the_last_minute_of_half_a_day() -> None:
    state, _ = told(
        [*START_UP, event("decided", "2020-09-27 13:20")], references(item(1, rule="R2")), "2020-10-20 09:00"
    )
    assert (state.status, state.on_time, state.used_minutes) == ("GRANTED", True, 210)
    assert cards(state) == [("YELLOW", "2020-09-27 11:38", None, "")]


def test_01_a_start_up_one_minute_later_gets_a_red_card() -> None:
    state, _ = told(
        [*START_UP, event("decided", "2020-09-27 13:21")], references(item(1, rule="R2")), "2020-10-20 09:00"
    )
    assert state.on_time is False
    assert ("RED", "2020-09-27 13:21", None, "") in cards(state)


def test_02_seven_days_off_bring_no_card() -> None:
    accepted = [event("accepted", "2021-09-30 16:50")]
    state, _ = told(accepted, references(item(0.5)), "2021-10-08 11:37")
    assert (due(state), cards(state)) == ("2021-10-08 13:20", [])
    assert judge.local_text(state.next_check_at) == "2021-10-08 11:38"


def test_04_a_mortgage_registration_over_national_day_uses_two_days() -> None:
    events = [event("accepted", "2020-09-30 10:00"), event("decided", "2020-10-10 16:00")]
    state, decisions = told(events, references(item(5, rule="R5-M")), "2020-10-20 09:00")
    assert (state.on_time, state.used_minutes) == (True, 420 + 360)
    assert decisions == ()


def as_announced_in_november_2019() -> Publication:
    """2020 before the emergency notice: closed to 01-30, worked on the Saturday of 02-01."""
    days = {d["day"]: d for d in calendar_row(2020, occurred_at=0, department="HS-XZSPJ")["days"]}
    days.pop(date(2020, 1, 31))
    days[date(2020, 2, 1)] = {"day": date(2020, 2, 1), "working": True, "name": "Spring Festival"}
    row = {**ROWS[16], "days": list(days.values()), "received_at": 0, "calendar_version": "2020-r1"}
    return Publication.of(row)


def test_06_a_calendar_revised_late_revokes_the_yellow_card_it_explains() -> None:
    revised = {
        **ROWS[16],
        "revision": 2,
        "calendar_version": "2020-r2",
        "received_at": ms("2020-02-05 08:00"),
    }
    others = [p for p in PUBLISHED if p.year != 2020]
    known = references(item(5), calendars=[*others, as_announced_in_november_2019(), Publication.of(revised)])
    state, _ = told([event("accepted", "2020-01-23 15:00")], known, "2020-02-04 17:00")
    assert (due(state), cards(state)) == ("2020-02-05 17:00", [("YELLOW", "2020-02-04 17:00", None, "")])
    later, decisions = fold(state, [], known, ms("2020-02-05 23:00"))
    assert due(later) == "2020-02-07 17:00"
    assert cards(later) == [("YELLOW", "2020-02-04 17:00", "2020-02-05 08:00", "calendar_revised")]
    assert [(d.action, d.seq) for d in decisions] == [("REVOKED", 2)]


def test_07_a_december_case_is_provisional_and_gets_no_red_card_until_the_table_arrives() -> None:
    off = tuple((day_of(date(2027, 1, day)), False) for day in (1, 4))
    table = Publication("000000", 2027, 1, "2027-r1", ms("2027-02-01 09:00"), off, ())
    known = references(item(20), calendars=[*PUBLISHED, table])
    before, _ = told([event("accepted", "2026-12-14 10:00")], known, "2027-01-31 09:00")
    assert (before.provisional, due(before)) == (True, "2027-01-12 17:00")
    assert [c[0] for c in cards(before)] == ["YELLOW"]
    after, _ = fold(before, [], known, ms("2027-02-02 09:00"))
    assert (after.provisional, due(after)) == (False, "2027-01-13 17:00")
    assert cards(after)[1] == ("RED", "2027-02-01 09:00", None, "")


def test_08_a_special_procedure_inside_twenty_days() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-10 10:00", special="EXPERT"),
        event("special_ended", "2025-03-20 15:00", special="EXPERT"),
    ]
    state, _ = told(events, references(item(20)), "2025-03-21 09:00")
    assert (state.status, due(state), judge.local_text(state.yellow_at)) == (
        "IN_PROCESS",
        "2025-04-14 14:00",
        "2025-04-08 14:00",
    )


def test_08_the_same_procedure_sent_once_after_its_end() -> None:
    whole = event(
        "special_ended",
        "2025-03-20 15:00",
        special="EXPERT",
        started_at=ms("2025-03-10 10:00"),
        ended_at=ms("2025-03-20 15:00"),
    )
    state, _ = told([event("accepted", "2025-03-03 09:30"), whole], references(item(20)), "2025-03-21 09:00")
    assert (state.status, due(state)) == ("IN_PROCESS", "2025-04-14 14:00")


def test_a_case_is_suspended_until_the_last_of_its_special_procedures_has_ended() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-10 10:00", special="EXPERT", event_no=1),
        event("special_started", "2025-03-12 10:00", special="HEARING", event_no=2),
        event("special_ended", "2025-03-14 15:00", special="EXPERT", event_no=1),
    ]
    state, _ = told(events, references(item(20)), "2025-03-17 09:00")
    assert (state.status, state.due_at) == ("SUSPENDED", None)
    last = event("special_ended", "2025-03-20 15:00", special="HEARING", event_no=2)
    state, _ = fold(state, [last], references(item(20)), ms("2025-03-21 09:00"))
    assert (state.status, due(state)) == ("IN_PROCESS", "2025-04-14 14:00")


def test_a_special_procedure_told_once_after_its_end_ends_no_other_of_its_number() -> None:
    """Senders number events by their type, and one that tells a procedure once has no other number than 1."""
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-05 09:00", special="HEARING"),
        event("special_ended", "2025-03-12 15:00", special="EXPERT", started_at=ms("2025-03-10 10:00"),
              ended_at=ms("2025-03-12 15:00")),
    ]  # fmt: skip
    state, _ = told(events, references(item(20)), "2025-03-17 09:00")
    assert (state.status, state.due_at) == ("SUSPENDED", None)
    for begun in (None, ms("2025-03-05 09:00")):
        last = event("special_ended", "2025-03-20 15:00", special="HEARING", event_no=2, started_at=begun)
        decided = event("decided", "2025-04-15 10:00")
        state, _ = told([*events, last, decided], references(item(20)), "2025-04-20 09:00")
        assert (due(state), state.on_time, findings(state)) == ("2025-04-17 15:00", True, [])
        assert all(colour != "RED" for colour, *_ in cards(state))


def test_a_special_procedure_of_less_than_a_minute_still_puts_the_case_in_process() -> None:
    whole = event("special_ended", "2025-03-10 10:00", special="EXPERT", started_at=ms("2025-03-10 10:00"))
    state, _ = told([event("accepted", "2025-03-03 09:30"), whole], references(item(20)), "2025-03-21 09:00")
    assert (state.status, due(state)) == ("IN_PROCESS", "2025-03-31 17:00")


def test_10_an_end_that_arrives_two_hours_before_its_start_brings_no_spurious_card() -> None:
    accepted = event("accepted", "2020-10-12 10:00")
    ended = event("special_ended", "2020-10-15 15:00", "2020-10-15 16:00", special="EXPERT")
    started = event("special_started", "2020-10-13 09:00", "2020-10-15 18:00", special="EXPERT")
    known = references(item(2))
    waiting, _ = told([accepted, ended], known, "2020-10-15 17:59")
    # the yellow card of 10-13 17:00 came before any evidence; the red one of 10-14 17:01 came before the end
    # arrived
    assert [c[0] for c in cards(waiting)] == ["YELLOW", "RED"]
    joined, _ = fold(waiting, [started], known, ms("2020-10-15 18:00"))
    assert {c[3] for c in cards(joined)} == {"late_pause"}
    assert (due(joined), findings(joined)) == ("2020-10-19 15:00", [])


def test_10_while_the_start_is_on_its_way_no_card_is_issued() -> None:
    accepted = event("accepted", "2020-10-12 10:00")
    ended = event("special_ended", "2020-10-13 15:00", special="EXPERT")
    started = event("special_started", "2020-10-13 09:00", "2020-10-13 17:00", special="EXPERT")
    known = references(item(2))
    waiting, said = told([accepted, ended], known, "2020-10-13 17:00")
    assert (cards(waiting), said) == ([], ())
    joined, said = fold(waiting, [started], known, ms("2020-10-13 17:30"))
    assert (cards(joined), said, joined.parked) == ([], (), ())


def test_10_an_end_whose_start_never_comes_is_itself_a_finding_after_a_day() -> None:
    events = [
        event("accepted", "2020-10-12 10:00"),
        event("special_ended", "2020-10-13 15:00", special="EXPERT"),
    ]
    state, _ = told(events, references(item(20)), "2020-10-14 14:59")
    assert (findings(state), judge.local_text(state.next_check_at)) == ([], "2020-10-14 15:00")
    assert findings(fold(state, [], references(item(20)), ms("2020-10-14 15:00"))[0]) == ["ended_without_start"]


def test_13_decided_while_suspended_closes_the_procedure_and_is_told() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-10 10:00", special="HEARING"),
        event("decided", "2025-05-20 15:00"),
    ]
    state, _ = told(events, references(item(20)), "2025-06-21 09:00")
    assert (state.status, findings(state), cards(state)) == ("GRANTED", ["decided_while_suspended"], [])
    assert state.on_time is True


def test_14_an_extension_on_day_18_moves_due_and_a_second_one_is_only_told() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("extended", "2025-03-27 10:00", extension=10.0),
        event("extended", "2025-04-10 10:00", extension=10.0, event_no=2),
    ]
    state, _ = told(events, references(item(20, 20)), "2025-04-15 17:00")
    assert (due(state), judge.local_text(state.statutory_due_at)) == ("2025-04-15 17:00", "2025-04-15 17:00")
    assert findings(state) == ["second_extension"]
    assert cards(state)[0] == ("YELLOW", "2025-03-25 17:00", "2025-03-27 10:00", "late_extension")


@pytest.mark.parametrize(
    ("limits", "unit", "amount", "promised", "legal"),
    [
        ((16, "3", None, "1"), "1", 2.0, "2025-03-07 17:00", None),  # two days after 2025-03-05 11:30
        ((5, "1", None, "1"), "2", 15.0, "2025-03-25 17:00", None),  # fifteen natural days after 2025-03-10 17:00
        ((10, "1", 2, "5"), "1", 10.0, "2025-03-31 17:00", "2025-05-20 17:00"),  # after 2025-05-06
        ((15, "2", 2, "5"), "2", 10.0, "2025-03-28 17:00", "2025-05-12 17:00"),  # 2 × 30 + 10 days
        ((120, "4", None, "1"), "3", 1.0, "2025-03-03 13:30", None),
        ((5, "1", None, "1"), "", 2.0, "2025-03-12 17:00", None),
    ],
)
def test_an_extension_counts_in_its_own_unit(
    limits: tuple[float, str, float | None, str], unit: str, amount: float, promised: str, legal: str | None
) -> None:
    promise, own, statutory, other = limits
    version = item(promise, statutory, promise_unit_code=own, statutory_unit_code=other)
    longer = event("extended", "2025-03-03 10:00", extension=amount, extension_unit=unit)
    state, _ = told([event("accepted", "2025-03-03 09:30"), longer], references(version), "2025-03-03 10:30")
    assert (due(state), findings(state)) == (promised, [])
    assert (None if legal is None else judge.local_text(state.statutory_due_at)) == legal


@pytest.mark.parametrize(
    ("limits", "kind", "amount", "unit", "promised", "legal", "found"),
    [
        ((20, 20), "01", 10.0, "1", "2025-04-15 17:00", "2025-04-15 17:00", []),
        ((20, 20), "01", 200.0, "1", "2025-04-15 17:00", "2025-04-15 17:00", ["extension_too_long"]),
        ((20, 45), "01", 15.0, "1", "2025-04-22 17:00", "2025-05-29 17:00", []),  # joint handling
        ((20, 45), "01", 16.0, "", "2025-04-22 17:00", "2025-05-29 17:00", ["extension_too_long"]),
        ((5, 20), "01", 14.0, "2", "2025-03-24 17:00", "2025-04-14 17:00", []),  # as long as ten working days
        ((5, 20), "01", 1.0, "5", "2025-03-24 17:00", "2025-04-15 17:00", ["extension_too_long"]),
        ((20, 20), "07", 30.0, "1", "2025-05-15 17:00", "2025-05-15 17:00", []),  # no source bounds it
    ],
)
def test_an_extension_of_a_licence_counts_up_to_what_the_law_allows(
    limits: tuple[float, float], kind: str, amount: float, unit: str, promised: str, legal: str, found: list[str]
) -> None:
    longer = event("extended", "2025-03-03 10:00", extension=amount, extension_unit=unit)
    known = references(item(*limits, item_type_code=kind))
    state, _ = told([event("accepted", "2025-03-03 09:30"), longer], known, "2025-03-03 10:30")
    assert (due(state), judge.local_text(state.statutory_due_at), findings(state)) == (promised, legal, found)


def test_an_extension_that_follows_the_limit_pauses_with_it_and_warns_before_its_own_end() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("extended", "2025-03-04 10:00", extension=20.0, extension_unit="2"),
        event("special_started", "2025-03-12 00:00", special="TEST"),
        event("special_ended", "2025-03-15 00:00", special="TEST"),
    ]
    state, _ = told(events, references(item(5)), "2025-03-31 09:00")
    assert (due(state), judge.local_text(state.yellow_at)) == ("2025-04-02 17:00", "2025-03-30 00:00")
    assert state.used_minutes is None


def test_an_extension_without_an_amount_is_told_and_leaves_the_right_to_one() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("extended", "2025-03-04 10:00"),
        event("extended", "2025-03-05 10:00", extension=10.0, event_no=2),
    ]
    state, _ = told(events, references(item(5)), "2025-03-10 17:00")
    assert (due(state), findings(state)) == ("2025-03-24 17:00", ["extension_without_amount"])


def test_a_special_procedure_told_once_with_its_end_pauses_from_when_it_was_told() -> None:
    """A source that sends the start when it happens, and with it the end that is planned (DOMAIN 3.3)."""
    ended: dict[str, Any] = {"special": "HEARING", "ended_at": ms("2025-03-20 15:00")}
    events = [event("accepted", "2025-03-03 09:30"), event("special_started", "2025-03-05 09:00", **ended)]
    state, _ = told(events, references(item(5)), "2025-03-21 09:00")
    assert (state.status, due(state), cards(state), findings(state)) == ("IN_PROCESS", "2025-03-26 15:00", [], [])


def test_the_end_of_a_special_procedure_told_apart_holds_against_the_planned_one() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-05 09:00", special="TEST", ended_at=ms("2025-03-20 15:00")),
        event("special_ended", "2025-03-07 09:00", special="TEST"),
    ]
    state, _ = told(events, references(item(5)), "2025-03-10 17:00")
    assert (due(state), findings(state)) == ("2025-03-12 17:00", [])


def test_the_end_of_a_special_procedure_that_pauses_nothing_need_not_repeat_its_kind() -> None:
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-04 09:00", special="SITE"),
        event("special_ended", "2025-03-05 09:00"),
    ]
    state, _ = told(events, references(item(5)), "2025-03-10 17:00")
    assert (due(state), findings(state)) == ("2025-03-10 17:00", [])
    assert state.alerts[0].evidence == (events[0].event_id,)


@pytest.mark.parametrize(
    ("result", "status"), [("5", "RETURNED"), ("3", "VOID"), ("4", "TRANSFERRED"), ("6", "NOT_ACCEPTED")]
)
@pytest.mark.parametrize("asked", [False, True])
def test_a_result_that_needs_no_acceptance_ends_a_case_that_was_not_accepted(
    result: str, status: str, asked: bool
) -> None:
    """A department that sends result rows has no other event to say it with (DOMAIN 3.4)."""
    papers = [event("submitted", "2025-03-03 09:30")]
    papers += [event("correction_requested", "2025-03-04 09:30")] if asked else []
    ended = event("decided", "2025-03-05 10:00", result_set="province.result-newer", result=result)
    state, _ = told([*papers, ended], references(item(5)), "2025-05-20 09:00")
    assert (state.status, findings(state), state.next_check_at) == (status, [], None)


def test_a_grant_before_the_acceptance_still_waits_for_it_and_a_refusal_after_it_is_a_denial() -> None:
    newer = {"result_set": "province.result-newer"}
    papers = [event("submitted", "2025-03-03 09:30"), event("decided", "2025-03-05 10:00", result="0", **newer)]
    state, _ = told(papers, references(item(5)), "2025-03-07 09:00")
    assert (state.status, findings(state)) == ("SUBMITTED", ["missing_predecessor"])
    papers = [event("accepted", "2025-03-03 09:30"), event("decided", "2025-03-05 10:00", result="6", **newer)]
    assert told(papers, references(item(5)), "2025-03-07 09:00")[0].status == "DENIED"


def test_14_an_extension_after_the_due_time_does_not_count() -> None:
    events = [event("accepted", "2025-03-03 09:30"), event("extended", "2025-04-01 10:00", extension=10.0)]
    state, _ = told(events, references(item(20)), "2025-04-15 17:00")
    assert (due(state), findings(state)) == ("2025-03-31 17:00", ["extension_after_due"])


def test_an_extension_is_not_too_late_by_a_due_time_that_is_provisional() -> None:
    asked = [event("accepted", "2026-12-14 10:00"), event("extended", "2027-01-13 10:00", extension=10.0)]
    state, _ = told(asked, references(item(20)), "2027-01-13 11:00")  # 2027 is not published: it would be due on 01-12
    assert (due(state), findings(state)) == ("2027-01-26 17:00", [])


def test_16_silence_for_five_working_days_is_acceptance_from_the_day_of_receipt() -> None:
    papers = [event("submitted", "2020-09-24 16:00")]
    known = references(item(10))
    waiting, _ = told(papers, known, "2020-09-30 17:00")
    assert (waiting.status, waiting.accepted_at, judge.local_text(waiting.next_check_at)) == (
        "SUBMITTED",
        None,
        "2020-09-30 17:01",
    )
    deemed, _ = fold(waiting, [], known, ms("2020-09-30 17:01"))
    assert (deemed.status, deemed.deemed, judge.local_text(deemed.accepted_at)) == (
        "ACCEPTED",
        True,
        "2020-09-24 16:00",
    )
    assert (due(deemed), findings(deemed)) == ("2020-10-14 17:00", ["deemed_accepted"])


def test_16_an_answer_in_the_last_minute_is_no_silence() -> None:
    events = [event("submitted", "2020-09-24 16:00"), event("accepted", "2020-09-30 17:00")]
    state, _ = told(events, references(item(10)), "2020-10-01 09:00")
    assert (state.deemed, judge.local_text(state.accepted_at), findings(state)) == (
        False,
        "2020-09-30 17:00",
        [],
    )


def test_silence_lets_act_what_waited_for_the_acceptance() -> None:
    """A special procedure told before any acceptance pauses the clock that silence starts."""
    events = [
        event("submitted", "2020-09-24 16:00"),
        event("special_started", "2020-09-25 10:00", special="EXPERT"),
    ]
    state, _ = told(events, references(item(5)), "2020-10-30 09:00")
    assert (state.status, state.deemed, cards(state)) == ("SUSPENDED", True, [])
    assert findings(state) == ["missing_predecessor", "deemed_accepted"]


def test_a_special_procedure_sent_after_its_end_is_no_silence_of_all_that_time() -> None:
    whole = event("special_ended", "2020-10-12 15:00", special="EXPERT", started_at=ms("2020-09-29 10:00"),
                  ended_at=ms("2020-10-12 15:00"))  # fmt: skip
    events = [event("submitted", "2020-09-24 16:00"), event("accepted", "2020-09-30 09:00"), whole]
    state, _ = told(events, references(item(5)), "2020-10-12 16:00")
    assert (state.deemed, judge.local_text(state.accepted_at)) == (False, "2020-09-30 09:00")
    assert (state.status, findings(state)) == ("IN_PROCESS", [])


def test_18_a_second_correction_notice_is_processed_and_told() -> None:
    events = [
        event("submitted", "2020-09-01 09:00"),
        event("correction_requested", "2020-09-02 09:00"),
        event("correction_received", "2020-09-07 09:00"),
        event("correction_requested", "2020-09-08 09:00", event_no=2),
    ]
    state, _ = told(events, references(item(10)), "2020-11-01 09:00")
    assert (state.status, findings(state)) == ("WAIT_CORRECTION", ["second_correction"])


def test_20_a_refusal_without_reason_is_oversights_business() -> None:
    events = [
        event("submitted", "2020-09-01 09:00"),
        event("not_accepted", "2020-09-02 09:00", reasoned=False),
    ]
    state, _ = told(events, references(item(10)), "2020-09-03 09:00")
    assert (state.status, findings(state)) == ("NOT_ACCEPTED", ["refusal_without_reason"])


@pytest.mark.parametrize("seed", range(6))
def test_21_an_on_the_spot_case_of_one_second_is_granted_in_any_order(seed: int) -> None:
    events = [event(kind, "2020-09-24 16:00") for kind in ("submitted", "accepted", "decided")]
    random.Random(seed).shuffle(events)
    state, _ = told(events, references(item(0)), "2020-09-30 17:00")
    assert (state.status, state.used_minutes, state.on_time, state.alerts) == ("GRANTED", 0, True, ())


def test_26_a_withdrawal_on_day_four_stops_and_leaves_the_overdue_rate_alone() -> None:
    events = [event("accepted", "2020-10-12 10:00"), event("withdrawn", "2020-10-16 10:00")]
    state, _ = told(events, references(item(5)), "2020-11-16 17:00")
    assert (state.status, state.on_time, [c[0] for c in cards(state)]) == ("WITHDRAWN", None, [])


def test_30_an_item_version_with_promise_above_statutory_is_not_judged_by() -> None:
    state, _ = told([event("accepted", "2020-10-12 10:00")], references(item(30, 20)), "2021-10-12 10:00")
    assert (state.due_at, state.alerts) == (None, ())


@pytest.mark.parametrize("promise", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_promise_that_is_no_amount_is_not_judged_by(promise: float) -> None:
    state, _ = told([event("accepted", "2020-10-12 10:00")], references(item(promise)), "2021-10-12 10:00")
    assert (state.due_at, state.alerts) == (None, ())


def test_a_case_of_the_last_century_and_of_the_last_year_that_has_a_date_are_judged_without_a_fault() -> None:
    for year in (1970, 9999):
        state, _ = told([event("accepted", f"{year}-12-31 23:00")], references(item(20, 30)), f"{year}-12-31 23:30")
        assert state.status == "ACCEPTED"


# --- cards
# ----------------------------------------------------------------------------------------------------------


def test_an_unfinished_case_goes_from_yellow_to_red_to_statutory_red_without_a_single_event() -> None:
    state, decisions = told([event("accepted", "2020-10-12 10:00")], references(item(5, 10)), "2020-12-01 10:00")
    assert cards(state) == [
        ("YELLOW", "2020-10-16 17:00", None, ""),
        ("RED", "2020-10-19 17:01", None, ""),
        ("RED_STATUTORY", "2020-10-26 17:01", None, ""),
    ]
    assert [(d.action, d.seq) for d in decisions] == [("ISSUED", 1)] * 3
    assert state.next_check_at is None


@pytest.mark.parametrize(("unit", "moment"), [("1", "2020-11-09 17:01"), ("2", "2020-11-02 17:01")])
def test_what_is_against_the_law_brings_no_second_red_card_for_the_promise(unit: str, moment: str) -> None:
    accepted = event("accepted", "2020-10-12 10:00")
    known = references(item(20, statutory=20, statutory_unit_code=unit))
    state, _ = told([accepted], known, "2020-12-01 09:00")
    assert [card for card in cards(state) if card[0] != "YELLOW"] == [("RED_STATUTORY", moment, None, "")]


def test_a_case_entered_after_its_due_time_gets_red_at_once_and_no_yellow() -> None:
    events = [event("accepted", "2020-10-12 10:00", "2020-11-02 10:00")]
    state, _ = told(events, references(item(5)), "2020-11-03 10:00")
    assert cards(state) == [("RED", "2020-11-02 10:00", None, "")]


def test_a_decision_entered_late_revokes_the_red_card() -> None:
    events = [event("accepted", "2020-10-12 10:00"), event("decided", "2020-10-19 16:59", "2020-10-21 09:00")]
    state, _ = told(events, references(item(5)), "2020-11-03 10:00")
    assert cards(state)[1] == ("RED", "2020-10-19 17:01", "2020-10-21 09:00", "late_stop")
    assert cards(state)[0] == ("YELLOW", "2020-10-16 17:00", None, "")


HALL, BUREAU = "HS-ZWFWZX", "HS-ZJJ"


def by(department: str, *told: Any, **more: Any) -> CaseEvent:
    """An event that ``department`` publishes."""
    return structs.replace(event(*told, **more), department=department)


def _handed_over(*more: CaseEvent) -> list[CaseEvent]:
    """Accepted by the hall; the bureau is named responsible after both cards came."""
    return [
        by(HALL, "accepted", "2020-11-09 10:00"),
        by(HALL, "step_completed", "2020-11-17 10:00", responsible=BUREAU),
        *more,
    ]


def test_a_card_is_told_for_who_answers_and_anew_when_that_changes_whenever_one_looks() -> None:
    events = _handed_over(by(HALL, "voided", "2020-11-18 10:00"))
    known = references(item(5))
    late, at_once = told(events, known, "2020-11-19 09:00")
    state, spoken = told(events[:1], known, "2020-11-16 18:00")
    for one, until in ((events[1], "2020-11-17 18:00"), (events[2], "2020-11-19 09:00")):
        state, more = fold(state, [one], known, ms(until))
        spoken += more
    red = [[(d.action, d.seq, d.department) for d in all_ if d.alert.colour == "RED"] for all_ in (spoken, at_once)]
    assert red[0] == red[1] == [("ISSUED", 1, HALL), ("ISSUED", 2, BUREAU), ("REVOKED", 3, BUREAU)]
    assert state.alerts == late.alerts
    assert {d.alert.alert_id: (d.seq, d.known_at) for d in spoken} == {
        d.alert.alert_id: (d.seq, d.known_at) for d in at_once
    }


def test_a_card_told_to_who_had_answered_before_is_told_to_who_answered_when_it_came() -> None:
    """The event that names the bureau was received a minute before the card, and committed after it."""
    known = references(item(5))
    late = by(HALL, "step_completed", "2020-11-16 10:00", "2020-11-16 17:00", responsible=BUREAU)
    state, first = told(_handed_over()[:1], known, "2020-11-16 17:01")
    _, then = fold(state, [late], known, ms("2020-11-16 18:00"))
    reds = [(d.action, d.seq, d.department) for d in (*first, *then) if d.alert.colour == "RED"]
    assert reds == [("ISSUED", 1, HALL), ("ISSUED", 2, BUREAU)]


def test_a_replay_that_has_not_come_to_a_change_of_department_says_nothing() -> None:
    events, known = _handed_over(), references(item(5))
    said, _ = told(events, known, "2020-11-19 09:00")
    behind = CaseState("CASE-1", (), spoken=said.spoken)
    again, words = fold(behind, events[:1], known, ms("2020-11-16 18:00"))
    assert words == ()
    assert fold(again, events[1:], known, ms("2020-11-19 09:00"))[1] == ()


def test_an_acceptance_told_after_silence_had_accepted_says_who_answers() -> None:
    events = [
        by(HALL, "submitted", "2020-11-02 09:00"),
        by(BUREAU, "accepted", "2020-11-12 10:00"),
    ]
    state, _ = told(events, references(item(20)), "2020-11-13 09:00")
    assert (state.deemed, state.department) == (True, BUREAU)


def test_a_paused_case_gets_no_card() -> None:
    events = [
        event("accepted", "2020-10-12 10:00"),
        event("special_started", "2020-10-13 10:00", special="HEARING"),
    ]
    state, _ = told(events, references(item(5)), "2021-01-11 09:59")
    assert (state.status, state.alerts) == ("SUSPENDED", ())
    assert judge.local_text(state.next_check_at) == "2021-01-11 10:00"  # the special procedure itself has its limit


def test_a_pause_told_late_takes_back_the_card_that_came_in_it_though_the_case_is_late_by_now() -> None:
    """DOMAIN 4.2: whoever must answer the card within a term would have it from a time that was not counted."""
    hearing = {"special": "HEARING", "started_at": ms("2020-11-16 10:00"), "ended_at": ms("2020-11-17 10:00")}
    events = [
        event("accepted", "2020-11-09 10:00"),
        event("special_ended", "2020-11-17 10:00", "2020-11-20 09:00", **hearing),
    ]
    state, _ = told(events, references(item(5)), "2020-11-23 09:00")
    assert due(state) == "2020-11-17 17:00"
    assert cards(state)[1:] == [
        ("RED", "2020-11-16 17:01", "2020-11-20 09:00", "late_pause"),
        ("RED", "2020-11-20 09:00", None, ""),
    ]
    assert [judge.local_text(a.due_at) for a in state.alerts][1:] == ["2020-11-16 17:00", "2020-11-17 17:00"]
    before, _ = told(events[:1], references(item(5)), "2020-11-19 09:00")
    assert fold(before, events[1:], references(item(5)), ms("2020-11-23 09:00"))[0].alerts == state.alerts


def test_a_special_procedure_of_more_than_ninety_days_is_a_finding_and_no_card() -> None:
    started = event("special_started", "2020-10-13 10:00", special="HEARING")
    state, _ = told([event("accepted", "2020-10-12 10:00"), started], references(item(5)), "2021-10-12 10:00")
    assert [(a.rule_id, judge.local_text(a.issued_at), a.evidence) for a in state.alerts] == [
        ("suspension_too_long", "2021-01-11 10:00", (started.event_id,))
    ]
    assert state.next_check_at is None
    ended = event("special_ended", "2020-12-01 10:00", "2021-10-13 10:00", special="HEARING")
    later, _ = fold(state, [ended], references(item(500)), ms("2021-10-14 09:00"))
    assert [(a.revoked_reason) for a in later.alerts] == ["late_pause"]


@pytest.mark.parametrize(("ended", "found"), [("2021-01-11 10:00", []), ("2021-01-11 10:01", ["suspension_too_long"])])
def test_a_special_procedure_told_after_its_end_was_too_long_or_not(ended: str, found: list[str]) -> None:
    whole = event("special_ended", ended, special="HEARING", started_at=ms("2020-10-13 10:00"), ended_at=ms(ended))
    state, _ = told([event("accepted", "2020-10-12 10:00"), whole], references(item(100)), "2021-01-12 10:00")
    assert findings(state) == found


def test_events_count_by_when_they_happened_not_by_when_they_came() -> None:
    events = [
        event("submitted", "2020-10-09 10:00"),
        event("accepted", "2020-10-14 10:00"),
        event("correction_requested", "2020-10-10 10:00", "2020-10-15 10:00"),
        event("correction_received", "2020-10-13 10:00", "2020-10-15 11:00"),
    ]
    state, _ = told(events, references(item(20)), "2020-10-16 10:00")
    assert (state.status, findings(state)) == ("ACCEPTED", [])


def test_a_voided_case_revokes_every_card() -> None:
    events = [event("accepted", "2020-10-12 10:00"), event("voided", "2020-10-30 10:00")]
    state, _ = told(events, references(item(5)), "2020-11-03 10:00")
    assert state.status == "VOID"
    assert {c[2:] for c in cards(state)} == {("2020-10-30 10:00", "case_voided")}


@pytest.mark.parametrize("kind", [kind for kind in RANK if kind != "voided"])
def test_a_case_decided_to_be_void_is_void_whatever_comes_after(kind: str) -> None:
    end = event("decided", "2020-10-13 10:00", result_set="province.result-older", result="2")
    events = [event("accepted", "2020-10-12 10:00"), end, event(kind, "2020-10-14 10:00", event_no=2)]
    state, _ = told(events, references(item(5)), "2020-11-03 10:00")
    assert (state.status, cards(state), findings(state)) == ("VOID", [], [])


def test_a_corrected_acceptance_time_moves_the_due_time() -> None:
    accepted = event("accepted", "2020-10-12 10:00")
    correction = event("corrected", "2020-10-20 09:00", corrects=accepted.event_id, corrected_at=ms("2020-10-14 10:00"))
    state, _ = told([accepted, correction], references(item(5)), "2020-10-20 10:00")
    assert due(state) == "2020-10-21 17:00"
    assert cards(state)[1] == ("RED", "2020-10-19 17:01", "2020-10-20 09:00", "case_corrected")


def test_a_card_says_rightly_whether_its_case_was_corrected_or_made_void() -> None:
    first = event("accepted", "2020-10-12 10:00")
    annulled = event("voided", "2020-10-20 09:00", corrects=first.event_id)
    anew = event("accepted", "2020-10-19 10:00", "2020-10-20 09:00", event_no=2)
    state, _ = told([first, annulled, anew], references(item(5)), "2020-10-20 10:00")
    assert (state.status, cards(state)[1][3]) == ("ACCEPTED", "case_corrected")
    void = event("decided", "2020-10-20 09:00", result_set="province.result-older", result="2")
    state, _ = told([first, void], references(item(5)), "2020-10-20 10:00")
    assert (state.status, cards(state)[1][3]) == ("VOID", "case_voided")


THEN = event("accepted", "2020-10-12 10:00")
MOVED = event("corrected", "2020-10-13 09:00", corrects=THEN.event_id, corrected_at=ms("2020-10-14 10:00"))


def annulled(target: CaseEvent, at: str) -> CaseEvent:
    return event("voided", at, corrects=target.event_id)


UNDONE, WHOLE = annulled(MOVED, "2020-10-13 10:00"), event("voided", "2020-10-12 11:00")
ANNULMENTS = [
    ([THEN, MOVED], "2020-10-21 17:00"),
    ([THEN, MOVED, UNDONE], "2020-10-19 17:00"),
    ([THEN, MOVED, UNDONE, annulled(UNDONE, "2020-10-13 09:30")], "2020-10-21 17:00"),
    ([THEN, WHOLE], ""),
    ([THEN, WHOLE, annulled(WHOLE, "2020-10-12 12:00")], "2020-10-19 17:00"),
]
"""What a case was told, and when it is due; none: it is void."""


@pytest.mark.parametrize(("log", "expected"), ANNULMENTS)
def test_what_is_annulled_is_as_if_it_had_not_been_said_a_correction_or_an_annulment_too(
    log: list[CaseEvent], expected: str
) -> None:
    for heard in permutations(log):
        state, _ = told(list(heard), references(item(5)), "2020-10-15 10:00")
        assert (due(state), state.status) == (expected, "ACCEPTED" if expected else "VOID")


@pytest.mark.parametrize("kind", ["corrected", "voided"])
def test_a_change_of_what_the_case_never_heard_of_is_a_finding_after_a_day_until_that_comes(kind: str) -> None:
    target = event("step_completed", "2020-10-12 11:00", "2020-10-15 10:00")
    change = event(kind, "2020-10-13 09:00", corrects=target.event_id, corrected_at=ms("2020-10-12 12:00"))
    known = references(item(20))
    state, _ = told([THEN, change], known, "2020-10-14 08:59")
    assert (findings(state), judge.local_text(state.next_check_at)) == ([], "2020-10-14 09:00")
    state, _ = fold(state, [], known, ms("2020-10-14 09:00"))
    assert findings(state) == ["missing_target"]
    assert findings(fold(state, [target], known, ms("2020-10-15 10:00"))[0]) == []
    undone = annulled(change, "2020-10-13 10:00")
    assert findings(told([THEN, change, undone], known, "2020-10-16 10:00")[0]) == []


def test_annulments_of_each_other_annul_nothing() -> None:
    one = annulled(THEN, "2020-10-13 10:00")
    two = structs.replace(one, event_id="two", corrects=one.event_id)
    ring = [structs.replace(one, corrects="two"), two]
    assert due(told([THEN, MOVED, *ring], references(item(5)), "2020-10-15 10:00")[0]) == "2020-10-21 17:00"


def test_a_card_issued_again_after_its_revocation_is_another_card() -> None:
    wrong = event("special_started", "2020-10-13 10:00", "2020-10-20 09:00", special="HEARING")
    ended = event("special_ended", "2020-10-13 11:00", "2020-10-20 10:00", special="HEARING")
    state, _ = told([event("accepted", "2020-10-12 10:00"), wrong, ended], references(item(5)), "2020-10-22 10:00")
    reds = [a for a in state.alerts if a.colour == "RED"]
    assert [a.ordinal for a in reds] == [1, 2]
    assert len({a.alert_id for a in reds}) == 2


def test_a_promise_longer_than_the_policy_is_cut_to_the_policy() -> None:
    state, _ = told([event("accepted", "2020-09-30 10:00")], references(item(9, rule="R5-G")), "2020-10-01 10:00")
    assert due(state) == "2020-10-14 17:00"


@pytest.mark.parametrize(
    ("rule", "amount", "unit", "expected"),
    [
        ("R5-M", 30, "2", ("2020-10-14 17:00", "2020-10-13 17:00")),  # as five working days
        ("R5-M", 1, "5", ("2020-10-14 17:00", "2020-10-13 17:00")),
        ("R5-M", 9, "2", ("2020-10-09 17:00", "2020-10-01 00:00")),  # the promise is shorter: one working day is left
        ("R2", 8, "3", ("2020-09-30 14:30", "2020-09-30 13:48")),  # 210 minutes
        ("R2", 2, "3", ("2020-09-30 12:00", "2020-09-30 11:36")),
    ],
)
def test_the_policy_also_cuts_a_promise_in_another_unit(
    rule: str, amount: float, unit: str, expected: tuple[str, str]
) -> None:
    known = references(item(amount, rule=rule, promise_unit_code=unit))
    state, _ = told([event("accepted", "2020-09-30 10:00")], known, "2020-09-30 10:00")
    assert (due(state), judge.local_text(state.yellow_at)) == expected
    longer = [event("accepted", "2020-09-30 10:00"), event("extended", "2020-09-30 10:30", extension=1.0)]
    assert due(told(longer, known, "2020-09-30 10:30")[0]) > expected[0]


def test_the_version_in_force_at_acceptance_judges_the_case() -> None:
    old = item(5, cancelled_on=date(2020, 10, 1))
    new = item(3, item_version=2, effective_on=date(2020, 10, 1))
    before, _ = told([event("accepted", "2020-09-30 10:00")], references(old, new), "2020-10-01 10:00")
    after, _ = told([event("accepted", "2020-10-09 10:00")], references(old, new), "2020-10-09 10:00")
    assert (due(before), due(after)) == ("2020-10-14 17:00", "2020-10-13 17:00")


@pytest.mark.parametrize("kind", ["step_completed", "special_started"])  # judged the short way, and the long one
def test_a_case_of_a_handling_item_goes_by_it_and_where_it_is_not_known_by_its_item(kind: str) -> None:
    log = [event("accepted", "2020-09-30 10:00"), event(kind, "2020-10-09 10:00", special="SITE" * (kind[1] == "p"))]
    known = references(item(5))
    of_its_own = replace(known, items={**known.items, ITEM + "01": item_versions([item(3)])})

    def due_of(code: str, by: References) -> str:
        return due(told([structs.replace(e, item_code=code) for e in log], by, "2020-10-09 10:00")[0])

    assert (due_of(ITEM + "01", known), due_of(ITEM + "02", of_its_own)) == ("2020-10-14 17:00", "2020-10-14 17:00")
    assert due_of(ITEM + "01", of_its_own) == "2020-10-12 17:00"
    assert (due_of(ITEM + "001", known), due_of(ITEM[:-1], known)) == ("", "")  # no code of a handling item
    for other in (item(3, effective_on=date(2020, 10, 1)), item(3, cancelled_on=date(2020, 9, 30))):  # not on that day
        other_days = replace(known, items={**known.items, ITEM + "01": item_versions([other])})
        assert due_of(ITEM + "01", other_days) == "2020-10-14 17:00"


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
def test_an_end_that_names_its_start_ends_it_whatever_numbers_they_bear(numbers: tuple[int, int]) -> None:
    begun, ended = numbers
    expert = {"special": "EXPERT"}
    events = [
        event("accepted", "2025-03-03 09:30"),
        event("special_started", "2025-03-10 10:00", event_no=begun, **expert),
        event("special_started", "2025-03-24 10:00", event_no=ended, **expert),
        event("special_ended", "2025-03-20 15:00", event_no=ended, started_at=ms("2025-03-10 10:00"), **expert),
        event("special_ended", "2025-03-25 10:00", event_no=3, started_at=ms("2025-03-24 10:00"), **expert),
    ]
    state, _ = told(events, references(item(20)), "2025-04-20 09:00")
    assert (state.status, due(state), cards(state)[-1][0]) == ("IN_PROCESS", "2025-04-15 14:00", "RED")


@pytest.mark.parametrize(
    ("events", "finding"),
    [
        (
            [
                event("accepted", "2020-10-12 10:00"),
                event("decided", "2020-10-13 10:00"),
                event("special_ended", "2020-10-15 10:00", special="EXPERT", started_at=ms("2020-10-14 10:00")),
            ],
            "event_after_terminal",
        ),
        (
            [event("accepted", "2020-10-12 10:00"), event("correction_requested", "2020-10-13 10:00")],
            "correction_after_acceptance",
        ),
        (
            [event("not_accepted", "2020-10-12 10:00"), event("accepted", "2020-10-13 10:00")],
            "accepted_after_terminal",
        ),
        (
            [
                event("accepted", "2020-10-12 10:00"),
                event("decided", "2020-10-12 11:00"),
                event("step_completed", "2020-10-13 10:00"),
            ],
            "event_after_terminal",
        ),
        (
            [
                event("accepted", "2020-10-12 10:00"),
                event("decided", "2020-10-12 11:00", result_set="province.result-newer", result="1"),
                event("certified", "2020-10-13 10:00"),
            ],
            "certificate_for_denied",
        ),
        (
            [event("accepted", "2020-10-12 10:00"), event("submitted", "2020-10-12 11:00")],
            "illegal_transition",
        ),
        ([event("certified", "2020-10-12 10:00")], "missing_predecessor"),
    ],
)
def test_what_may_not_happen_becomes_a_finding(events: list[CaseEvent], finding: str) -> None:
    state, _ = told(events, references(item(20)), "2020-10-15 10:00")
    assert findings(state) == [finding]


def test_a_straggler_that_unmakes_a_card_has_it_retracted() -> None:
    known = references(item(5))
    open_case, _ = told([event("accepted", "2020-10-12 10:00")], known, "2020-10-19 18:00")
    state, decisions = fold(open_case, [event("decided", "2020-10-15 10:00")], known, ms("2020-10-19 18:00"))
    assert (state.alerts, [(d.action, d.seq) for d in decisions]) == ((), [("RETRACTED", 2)] * 2)
    assert fold(state, [], known, ms("2020-10-20 18:00"))[1] == ()


def test_a_statement_names_rule_calendar_and_evidence_and_no_person() -> None:
    accepted = event("accepted", "2020-10-12 10:00")
    _, decisions = told([accepted], references(item(5)), "2020-10-16 17:00")
    record = judge.alert_record("CASE-1", decisions[0])
    assert record["summary"] == "黄牌：办件 CASE-1 承诺时限将到，应于 2020-10-19 17:00 前办结，请尽快办理。"
    assert (record["rule_id"], record["rule_version"], record["calendar_version"], record["evidence"]) == (
        "HS-CARD-Y",
        "1",
        "2020-r1",
        [accepted.event_id],
    )


# --- the log alone
# --------------------------------------------------------------------------------------------------

KINDS = tuple(RANK)
RESULTS = (("", ""), *(("province.result-newer", code) for code in "0123456"), ("province.result-older", "1"))
EXTENSIONS = ((3.0, ""), (3.0, "1"), (12.0, "1"), (10.0, "2"), (None, "1"), (4.0, "3"), (1.0, "5"))
FIRST = ms("2020-01-15 09:00")


@st.composite
def logs(draw: st.DrawFn) -> list[CaseEvent]:
    """A case's log: mostly lawful beginnings, then anything, with late entry and disorder."""
    kinds = ["submitted", "accepted", *draw(st.lists(st.sampled_from(KINDS), max_size=6))]
    at = FIRST
    made: list[CaseEvent] = []
    for number, kind in enumerate(kinds):
        at += draw(st.integers(0, 80)) * HOUR // 2
        late = draw(st.sampled_from((0, 0, 0, 1, 30, 200))) * HOUR
        one = CaseEvent(f"e{number}", kind, "430903", "HS-ZRZYJ", ITEM, at, at + late, number)
        made.append(_detailed(draw, one, made))
    if draw(st.booleans()):
        made = draw(st.permutations(made))
    return made


def _detailed(draw: st.DrawFn, one: CaseEvent, before: list[CaseEvent]) -> CaseEvent:
    if one.type == "voided" and draw(st.integers(0, 3)) == 0:
        return one
    if one.type in ("corrected", "voided") and before:
        target = draw(st.sampled_from(before))
        return structs.replace(
            one, corrects=target.event_id, corrected_at=target.occurred_at + draw(st.integers(-50, 50)) * HOUR
        )
    if one.type.startswith("special_"):
        kind = draw(st.sampled_from(("", "TEST", "SITE")))
        one = structs.replace(one, special=kind, event_no=draw(st.integers(1, 2)))
        started_at = one.occurred_at - draw(st.integers(1, 60)) * HOUR
        ended_at = one.occurred_at + draw(st.integers(0, 60)) * HOUR
        whole = {"started_at": started_at, "ended_at": one.occurred_at}
        return structs.replace(one, **draw(st.sampled_from(({}, whole, {"ended_at": ended_at}))))
    if one.type == "decided":
        result_set, result = draw(st.sampled_from(RESULTS))
        return structs.replace(one, result_set=result_set, result=result, reasoned=draw(st.booleans()))
    if one.type == "accepted" and draw(st.booleans()):
        verify_by = one.occurred_at + draw(st.integers(-50, 200)) * HOUR
        responsible = draw(st.sampled_from(("", "HS-GAFJ")))
        return structs.replace(one, acceptance="PROMISE", verify_by=verify_by, responsible=responsible)
    if one.type == "step_completed":
        return structs.replace(one, step=draw(st.sampled_from(("", "审查", "决定"))))
    if one.type == "verified":
        return structs.replace(one, verification=draw(st.sampled_from(("KEPT", "BROKEN"))))
    if one.type == "extended":
        amount, unit = draw(st.sampled_from(EXTENSIONS))
        return structs.replace(one, extension=amount, extension_unit=unit)
    return one


@st.composite
def timed_references(draw: st.DrawFn) -> References:
    """Calendars of which some become known while the case runs, and an item."""
    revised = {
        **ROWS[16],
        "revision": 2,
        "calendar_version": "2020-r2",
        "received_at": FIRST + draw(st.integers(0, 500)) * HOUR,
    }
    late = replace(as_announced_in_november_2019(), received_at=FIRST + draw(st.integers(-50, 300)) * HOUR)
    published = [p for p in PUBLISHED if p.year != 2020]
    chosen = draw(st.sampled_from(([], [late], [late, Publication.of(revised)], [Publication.of(revised)])))
    promise, unit = draw(st.sampled_from(((0.5, "1"), (1, "1"), (2, "1"), (5, "1"), (20, "1"), (15, "2"), (7, "3"))))
    more: dict[str, Any] = {"promise_unit_code": unit}
    if draw(st.booleans()):  # a licence, handled in two steps
        limit = {"step_limit": 1.0, "step_unit_code": "1"}
        more |= {"item_type_code": "01", "steps": [{"step_name": name, **limit} for name in ("审查", "决定")]}
    statutory = promise + 3 if unit == "1" and draw(st.booleans()) else None
    return references(item(promise, statutory, **more), calendars=[*published, *chosen])


def seen(state: CaseState) -> str:
    columns = state.status, state.due_at, state.next_check_at, state.on_time
    return json.encode([state.dump(), state.dump_derived(), *columns]).decode()


def piecewise(data: st.DataObject, log: list[CaseEvent], known: References, end: int) -> CaseState:
    """The log in pieces, timers at random horizons in between, references that appear late, states through
    JSON.
    """
    state, unread = CaseState("CASE-1", ()), list(log)
    early = References(CalendarHistory(PUBLISHED[:16]))
    before, appears = early, data.draw(st.integers(0, len(log)))
    while unread:
        size = data.draw(st.integers(1, len(unread)))
        piece, unread = unread[:size], unread[size:]
        held = known if len(log) - len(unread) > appears else early
        state = structs.replace(state, next_check_at=0) if held is not before else state  # the mark that references set
        before = held
        state, _ = fold(_stored(state), piece, held, 0)
        if data.draw(st.booleans()):
            state, _ = fold(_stored(state), [], held, FIRST + data.draw(st.integers(0, 1000)) * HOUR)
    state, _ = fold(structs.replace(_stored(state), next_check_at=0), [], known, 0)
    while state.next_check_at is not None and state.next_check_at <= end:
        state, _ = fold(_stored(state), [], known, end if data.draw(st.booleans()) else state.next_check_at)
    return state


@settings(max_examples=300, deadline=None)
@given(logs(), timed_references(), st.integers(0, 1500), st.booleans())
def test_a_calendar_that_comes_later_need_not_be_judged_before_its_own_time(
    log: list[CaseEvent], known: References, hours: int, split: bool
) -> None:
    early = replace(known, calendars=CalendarHistory([p for p in PUBLISHED if p.year != 2020]))
    new = sorted(set(known.calendars.changes("430903")) - set(early.calendars.changes("430903")))
    if not new:
        return
    first, rest = (log[:-1], log[-1:]) if split else (log, [])
    state, _ = fold(CaseState("CASE-1", ()), first, early, FIRST + hours * HOUR)
    quiet = -min(new[0], state.next_check_at or new[0])
    quick, whole = (fold(_stored(structs.replace(state, next_check_at=mark)), rest, known, 0) for mark in (quiet, 0))
    assert (seen(quick[0]), quick[1]) == (seen(whole[0]), whole[1])


def _stored(state: CaseState) -> CaseState:
    return CaseState.load(state.case_no, json.encode(state.dump()).decode(), state.next_check_at, state.spoken)


@settings(max_examples=600, deadline=None)
@given(st.data(), logs(), timed_references())
def test_any_cut_and_any_timer_give_the_same_case_and_the_same_cards(
    data: st.DataObject, log: list[CaseEvent], known: References
) -> None:
    end = max(e.known_at for e in log) + 3000 * HOUR
    whole, _ = fold(CaseState("CASE-1", ()), log, known, end)
    assert seen(piecewise(data, log, known, end)) == seen(whole)


@settings(max_examples=200, deadline=None)
@given(st.data(), logs(), timed_references())
def test_what_was_said_last_is_what_is_derived(data: st.DataObject, log: list[CaseEvent], known: References) -> None:
    end = max(e.known_at for e in log) + 3000 * HOUR
    state = piecewise(data, log, known, end)
    standing = {i: s.action for i, s in state.spoken.items() if s.action != "RETRACTED"}
    assert standing == {a.alert_id: "ISSUED" if a.revoked_at is None else "REVOKED" for a in state.alerts}


@settings(max_examples=200, deadline=None)
@given(logs(), timed_references())
def test_a_rebuild_that_remembers_what_was_said_says_nothing(log: list[CaseEvent], known: References) -> None:
    end = max(e.known_at for e in log) + 3000 * HOUR
    whole, _ = fold(CaseState("CASE-1", ()), log, known, end)
    again = CaseState("CASE-1", (), spoken=whole.spoken)
    for _, together in groupby(whole.events, key=lambda e: e.known_at):
        again, decisions = fold(again, list(together), known, 0)
        assert decisions == ()
    assert fold(again, [], known, end)[1] == ()


@settings(max_examples=200, deadline=None)
@given(logs(), timed_references())
def test_no_clock_has_two_cards_of_one_colour_at_a_time_or_yellow_under_red(
    log: list[CaseEvent], known: References
) -> None:
    state, _ = fold(CaseState("CASE-1", ()), log, known, max(e.known_at for e in log) + 3000 * HOUR)
    given_ = [a for a in state.alerts if a.kind == "CARD"]
    assert all(a.issued_at <= _end(a) for a in given_)
    for a, b in combinations(given_, 2):
        apart = _end(b) <= a.issued_at or _end(a) <= b.issued_at
        assert apart or (a.colour, a.subject, clock_of(a.rule_id)) != (b.colour, b.subject, clock_of(b.rule_id))
        if (a.subject, _running(a)) == (b.subject, _running(b)):
            assert not (b.colour == "YELLOW" and a.colour.startswith("RED") and a.issued_at <= b.issued_at < _end(a))


def _end(alert: Alert) -> int:
    return alert.revoked_at or 1 << 60


def _running(alert: Alert) -> str:
    """The work that the card is about: the statute limits the same handling."""
    clock = clock_of(alert.rule_id)
    return "handling" if clock == "statutory" else clock
