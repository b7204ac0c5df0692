"""The handling of cards and bad ratings (DOMAIN 4.2, 5.7): its examples, and that only what is known counts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.intake.calendar import calendar_rows
from streams.rules import life
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.judge import local_text
from streams.rules.life import Act, Desk, Life, Word

CALENDARS = CalendarHistory(
    Publication.of({**row, "received_at": 0}) for row in calendar_rows(occurred_at=0, department="HS-XZSPJ")
)
BUREAU, DECIDER = "HS-ZJJ", "HS-XZSPJ"


def ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return epoch_ms(day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute)


def bad(at: str, alert_id: str = "A", given: str = "") -> Word:
    return Word(alert_id, "BAD_RATING", "NONE", "C1", BUREAU, ms(at), given_at=ms(given or at))


def card(at: str, colour: str = "RED", alert_id: str = "A", case_no: str = "C1") -> Word:
    return Word(alert_id, "CARD", colour, case_no, BUREAU, ms(at))


def act(kind: str, at: str, heard: str = "", alert_id: str = "A", department: str = "", verified: str = "") -> Act:
    by = department or (DECIDER if kind in ("upheld", "revoked", "supervised", "supervision_cancelled") else BUREAU)
    return Act(f"{alert_id}/{kind}/{at}", alert_id, kind, by, ms(at), ms(heard or at), verified)


def seen(words: Sequence[Word], acts: Sequence[Act], now: str, calendars: CalendarHistory = CALENDARS) -> Desk:
    return life.desk(words, acts, calendars, "430903", ms(now))


def one(word: Word, acts: Sequence[Act], now: str = "2021-06-30 17:00") -> Life:
    (lived,) = seen([word], acts, now).lives
    return lived


def said(found: Desk) -> list[tuple[str, str, str, str, str]]:
    """(kind, colour, rule, issued, revoked and why) of every alert about the alerts."""
    return [
        (a.kind, a.colour, a.rule_id, local_text(a.issued_at), f"{local_text(a.revoked_at)} {a.revoked_reason}".strip())
        for a in found.alerts
    ]


LOOP = [
    act("signed", "2020-09-21 14:00"),
    act("contacted", "2020-09-22 10:00"),
    act("verified", "2020-09-22 16:00", verified="VALID"),
]


EXCLUDED = [
    act("signed", "2020-09-21 14:00"),
    act("contacted", "2020-09-23 08:30"),
    act("verified", "2020-09-23 08:40", verified="VALID"),
    act("appealed", "2020-09-23 09:00"),
    act("revoked", "2020-09-24 10:00"),
]


# --- bad ratings ---


def test_the_example_contact_is_due_the_next_day_and_rectification_after_the_holidays() -> None:
    lived = one(bad("2020-09-21 11:00"), [])
    assert [(r.timer.name, local_text(r.due_at)) for r in lived.runs if r.timer.name in ("contact", "rectify")] == [
        ("contact", "2020-09-22 17:00"),
        ("rectify", "2020-10-16 17:00"),
    ]


def test_raised_on_a_saturday_contact_is_due_on_the_make_up_sunday() -> None:
    contact = one(bad("2020-09-26 10:00"), []).run("contact")
    assert contact is not None
    assert local_text(contact.due_at) == "2020-09-27 17:00"


def test_narrative_34_rectified_at_16_59_of_the_last_day_is_in_time() -> None:
    found = seen([bad("2020-09-21 11:00")], [*LOOP, act("rectified", "2020-10-16 16:59")], "2020-10-20 09:00")
    assert said(found) == []
    assert found.lives[0].stage == "RECTIFIED"


def test_narrative_34_rectified_the_monday_after_is_late_and_has_its_red_card() -> None:
    found = seen([bad("2020-09-21 11:00")], [*LOOP, act("rectified", "2020-10-19 09:30")], "2020-10-20 09:00")
    assert said(found) == [("HANDLING", "RED", "HS-LIFE-RECTIFY", "2020-10-16 17:01", "")]


def test_nobody_contacted_the_citizen_a_yellow_card_the_minute_after() -> None:
    word = bad("2020-09-21 11:00")
    assert said(seen([word], [], "2020-09-22 17:00")) == []
    assert said(seen([word], [], "2020-09-22 17:01")) == [
        ("HANDLING", "YELLOW", "HS-LIFE-CONTACT", "2020-09-22 17:01", "")
    ]


def test_the_whole_loop_ends_closed() -> None:
    acts = [
        *LOOP,
        act("rectified", "2020-10-12 10:00"),
        act("fed_back", "2020-10-12 11:00"),
        act("called_back", "2020-10-13 10:00"),
        act("closed", "2020-10-13 11:00"),
    ]
    lived = one(bad("2020-09-21 11:00"), acts)
    assert [s.stage for s in lived.steps] == [
        "ASSIGNED", "CONTACTED", "RECTIFYING", "RECTIFIED", "FED_BACK", "CALLED_BACK", "CLOSED",
    ]  # fmt: skip
    assert lived.next_run is None


def test_an_appeal_that_succeeds_excludes_the_rating_and_takes_the_overdue_card_back() -> None:
    found = seen([bad("2020-09-21 11:00")], EXCLUDED, "2020-12-01 09:00")
    assert (found.lives[0].stage, local_text(found.lives[0].out_at)) == ("EXCLUDED", "2020-09-24 10:00")
    assert said(found) == [
        ("HANDLING", "YELLOW", "HS-LIFE-CONTACT", "2020-09-22 17:01", "2020-09-24 10:00 appeal_upheld"),
        ("RULING", "NONE", "HS-LIFE-RULING", "2020-09-24 10:00", ""),
    ]
    assert found.alerts[1].evidence[0] == found.lives[0].word.alert_id


@pytest.mark.parametrize(
    ("kind", "reason", "late", "fate"),
    [
        # nobody takes back what the citizen said, and the appeal stays decided
        ("BAD_RATING", "case_voided", [], ""),
        ("BAD_RATING", "rating_corrected", [], "2020-09-25 09:00 alert_revoked"),
        ("CARD", "case_voided", [], "2020-09-25 09:00 alert_revoked"),
        ("FINDING", "appeal_upheld", [], "2020-09-25 09:00 alert_revoked"),
        ("CARD", "", [act("upheld", "2020-09-24 09:00", heard="2020-09-28 09:00")], "2020-09-28 09:00 late_handling"),
    ],
)
def test_a_decision_on_an_appeal_stands_as_long_as_the_appeal_is_what_took_the_alert_out(
    kind: str, reason: str, late: list[Act], fate: str
) -> None:
    word = replace(bad("2020-09-21 11:00"), kind=kind)
    if reason:
        word = replace(word, revoked_at=ms("2020-09-25 09:00"), revoked_reason=reason)
    found = seen([word], [*EXCLUDED, *late], "2020-09-30 09:00")
    assert [a for a in said(found) if a[0] == "RULING"] == [
        ("RULING", "NONE", "HS-LIFE-RULING", "2020-09-24 10:00", fate)
    ]
    if reason and fate:
        early = replace(word, revoked_at=ms("2020-09-23 10:00"))
        assert [a for a in said(seen([early], EXCLUDED, "2020-09-30 09:00")) if a[0] == "RULING"] == []


def test_what_the_citizen_was_not_asked_about_is_not_appealed_and_nothing_is_called_back_before_it_was_told() -> None:
    word = bad("2020-09-21 11:00")
    early = [act("signed", "2020-09-21 14:00"), act("appealed", "2020-09-21 15:00"), *LOOP[1:]]
    assert [(s.stage, s.fault) for s in one(word, early).steps][1] == ("ASSIGNED", "out_of_order")
    names = ("rectified", "called_back", "fed_back")
    late = [act(name, f"2020-10-12 1{hour}:00") for hour, name in enumerate(names)]
    told = [*LOOP, *late]
    assert [(s.stage, s.fault) for s in one(word, told).steps][-2:] == [("RECTIFIED", "out_of_order"), ("FED_BACK", "")]


def test_nobody_decides_in_its_own_matter() -> None:
    word = replace(bad("2020-09-21 11:00"), department=DECIDER)
    acts = [replace(a, department=DECIDER) for a in EXCLUDED]
    assert [s.fault for s in one(word, acts).steps][-1] == "not_entitled"
    assert one(word, [*acts[:-1], replace(acts[-1], department="HS-LDXZ")]).stage == "EXCLUDED"
    late = seen([word], acts[:-1], "2020-10-12 09:00")
    assert ("HANDLING", "YELLOW", "HS-LIFE-REVIEW") in [a[:3] for a in said(late)]
    assert (life.addressee("HS-LIFE-REVIEW", DECIDER), life.addressee("HS-LIFE-REVIEW", BUREAU)) == ("HS-LDXZ", DECIDER)


def test_an_appeal_that_fails_goes_back_to_rectifying() -> None:
    acts = [*LOOP, act("appealed", "2020-09-23 09:00"), act("upheld", "2020-09-24 10:00")]
    assert one(bad("2020-09-21 11:00"), acts).stage == "RECTIFYING"


def test_a_rating_that_its_publisher_corrected_leaves_the_loop() -> None:
    word = replace(bad("2020-09-21 11:00"), revoked_at=ms("2020-09-25 09:00"), revoked_reason="rating_corrected")
    found = seen([word], [], "2020-12-01 09:00")
    assert (found.lives[0].stage, found.lives[0].out_reason) == ("REVOKED", "rating_corrected")
    assert [s[4] for s in said(found)] == ["2020-09-25 09:00 alert_revoked"]


# --- cards ---


def test_a_card_is_signed_corrected_at_once_and_closed() -> None:
    acts = [
        act("signed", "2020-09-21 14:00"),
        act("rectified", "2020-09-22 09:00"),
        act("closed", "2020-09-23 09:00"),
    ]
    lived = one(card("2020-09-21 11:00"), acts)
    at_once = lived.run("at_once")
    assert ([s.stage for s in lived.steps], lived.out_at) == (["SIGNED", "CORRECTED", "CLOSED"], None)
    assert at_once is not None
    assert at_once.late_from is None


def test_explained_late_the_card_about_the_delay_stays() -> None:
    acts = [act("signed", "2020-09-21 14:00"), act("explained", "2020-09-25 09:00")]
    assert said(seen([card("2020-09-21 11:00")], acts, "2020-09-25 10:00")) == [
        ("HANDLING", "YELLOW", "HS-LIFE-ANSWER", "2020-09-24 17:01", "")
    ]


def test_a_cancelled_supervision_goes_back_to_the_stage_before_it() -> None:
    acts = [
        act("signed", "2020-09-21 14:00"),
        act("supervised", "2020-09-22 09:00"),
        act("supervised", "2020-09-22 15:00"),
        act("supervision_cancelled", "2020-09-23 09:00"),
    ]
    assert one(card("2020-09-21 11:00"), acts).stage == "SIGNED"


@pytest.mark.parametrize(
    ("before", "timer", "due"),
    [
        ([], "sign", "2020-09-24 17:00"),
        ([act("signed", "2020-09-21 14:00")], "answer", "2020-09-27 17:00"),
        ([act("signed", "2020-09-21 14:00"), act("explained", "2020-09-21 15:00")], "close", "2020-10-13 17:00"),
    ],
)
def test_what_a_supervision_stopped_runs_anew_when_it_is_cancelled(before: list[Act], timer: str, due: str) -> None:
    acts = [
        *before,
        act("supervised", "2020-09-22 09:00"),
        act("supervised", "2020-09-22 15:00"),
        act("supervision_cancelled", "2020-09-23 09:00"),
    ]
    running = one(card("2020-09-21 11:00"), acts).next_run
    assert running is not None
    assert (running.timer.name, running.number, local_text(running.due_at)) == (timer, 2, due)


def test_an_unanswered_supervision_is_a_red_matter() -> None:
    acts = [act("signed", "2020-09-21 14:00"), act("supervised", "2020-09-22 09:00")]
    assert ("HANDLING", "RED", "HS-LIFE-SUPERVISE", "2020-09-25 17:01", "") in said(
        seen([card("2020-09-21 11:00")], acts, "2020-09-25 17:01")
    )


def test_a_card_revoked_on_appeal_stays_in_history_and_leaves_the_statistics() -> None:
    acts = [
        act("signed", "2020-09-21 14:00"),
        act("appealed", "2020-09-24 16:00"),
        act("revoked", "2020-09-25 10:00"),
    ]
    lived = one(card("2020-09-21 11:00"), acts)
    assert (lived.stage, local_text(lived.out_at), len(lived.steps)) == ("REVOKED", "2020-09-25 10:00", 3)
    told = said(seen([card("2020-09-21 11:00")], acts, "2020-09-25 10:00"))
    assert told == [("RULING", "NONE", "HS-LIFE-RULING", "2020-09-25 10:00", "")]
    assert said(seen([card("2020-09-21 11:00")], acts, "2020-09-25 09:59")) == []


def test_nothing_is_left_to_do_about_a_decision_on_an_appeal() -> None:
    ruling = replace(card("2020-09-25 10:00", "NONE"), kind="RULING")
    assert one(ruling, []).stage == "CLOSED"
    found = seen([ruling], [act("signed", "2020-09-28 09:00")], "2021-06-30 17:00")
    assert [a[2] for a in said(found)] == ["illegal_handling"]


# --- what may not follow ---


@pytest.mark.parametrize(
    ("acts", "fault"),
    [
        ([act("signed", "2020-09-21 14:00"), act("appealed", "2020-09-25 09:00")], "appeal_late"),
        ([act("closed", "2020-09-21 14:00")], "out_of_order"),
        ([act("contacted", "2020-09-21 14:00")], "not_for_kind"),
        ([act("signed", "2020-09-21 14:00", department="HS-JTJ")], "not_entitled"),
        ([act("signed", "2020-09-21 10:59", heard="2020-09-21 14:00")], "before_alert"),
        (
            [
                act("appealed", "2020-09-22 09:00"),
                act("revoked", "2020-09-22 10:00", department=BUREAU),
            ],
            "not_entitled",
        ),
        (
            [
                act("signed", "2020-09-21 14:00"),
                act("rectified", "2020-09-21 15:00"),
                act("closed", "2020-09-21 16:00"),
                act("explained", "2020-09-22 09:00"),
            ],
            "after_end",
        ),
    ],
)
def test_an_act_that_may_not_follow_has_no_effect_and_becomes_a_finding(acts: list[Act], fault: str) -> None:
    found = seen([card("2020-09-21 11:00")], acts, "2020-09-25 12:00")
    assert found.lives[0].steps[-1].fault == fault
    assert found.lives[0].stage == (found.lives[0].steps[-2].stage if len(acts) > 1 else "ISSUED")
    assert [s[0] for s in said(found) if s[2] == "illegal_handling"] == ["FINDING"]


def test_others_than_the_department_and_the_supervisors_close_no_card() -> None:
    acts = [
        act("signed", "2020-09-21 14:00", department="HS-JTJ"),
        act("rectified", "2020-09-21 15:00", department="HS-MZJ"),
        act("closed", "2020-09-21 16:00", department="HS-JYJ"),
    ]
    found = seen([card("2020-09-21 11:00")], acts, "2020-09-30 17:00")
    assert (found.lives[0].stage, [s.fault for s in found.lives[0].steps]) == ("ISSUED", ["not_entitled"] * 3)
    assert ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "2020-09-22 17:01", "") in said(found)
    assert one(card("2020-09-21 11:00"), [replace(a, department=DECIDER) for a in acts]).stage == "CLOSED"


def test_acts_of_a_mistyped_year_end_no_card_and_take_no_late_one_back() -> None:
    acts = [
        act("signed", "2019-09-21 14:00", heard="2020-09-30 10:00"),
        act("rectified", "2019-09-21 15:00", heard="2020-09-30 10:00"),
        act("closed", "2019-09-21 16:00", heard="2020-09-30 10:00"),
    ]
    found = seen([card("2020-09-21 11:00")], acts, "2020-12-01 09:00")
    assert (found.lives[0].stage, [s.fault for s in found.lives[0].steps]) == ("ISSUED", ["before_alert"] * 3)
    assert [s for s in said(found) if s[0] == "HANDLING"] == [
        ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "2020-09-22 17:01", "")
    ]


def test_a_card_is_signed_in_the_minute_in_which_it_is_issued() -> None:
    word = replace(card("2020-09-21 11:00"), issued_at=ms("2020-09-21 11:00") + 59_999)
    assert one(word, [act("signed", "2020-09-21 11:00")]).stage == "SIGNED"


def test_a_citizen_is_contacted_before_the_bus_knows_of_the_rating_but_not_before_it_was_given() -> None:
    word = bad("2020-09-22 09:00", given="2020-09-21 11:00")
    assert one(word, [act("contacted", "2020-09-21 11:00")]).stage == "CONTACTED"
    assert one(word, [act("contacted", "2020-09-21 10:59")]).steps[-1].fault == "before_alert"


def test_an_act_that_came_before_its_predecessor_waits_a_day_for_it() -> None:
    early = act("rectified", "2020-09-21 15:00")
    signed = act("signed", "2020-09-21 14:00", heard="2020-09-22 14:00")
    word = card("2020-09-21 11:00")
    assert said(seen([word], [early], "2020-09-22 14:59")) == []
    assert [s[2] for s in said(seen([word], [early], "2020-09-22 15:00"))] == ["illegal_handling"]
    assert [s[2] for s in said(seen([word], [early, signed], "2020-09-22 16:00"))] == []
    assert one(word, [early, signed]).stage == "CORRECTED"


def test_a_contact_reported_late_takes_the_overdue_card_back_from_then_on() -> None:
    acts = [act("contacted", "2020-09-22 10:00", heard="2020-09-23 08:00")]
    assert said(seen([bad("2020-09-21 11:00")], acts, "2020-09-24 09:00")) == [
        ("HANDLING", "YELLOW", "HS-LIFE-CONTACT", "2020-09-22 17:01", "2020-09-23 08:00 late_handling")
    ]


def test_a_due_day_in_an_unpublished_year_raises_nothing_until_it_is_published() -> None:
    word = bad("2027-03-01 11:00")
    assert said(seen([word], [], "2027-12-01 09:00")) == []


# --- red after red ---


def test_a_second_red_card_on_one_case_goes_to_the_leading_group() -> None:
    words = [card("2020-09-21 11:00"), card("2020-09-23 11:00", "RED_STATUTORY", "B")]
    assert ("ESCALATION", "RED", "HS-ESC-CASE", "2020-09-23 11:00", "") in said(seen(words, [], "2020-09-23 11:00"))
    assert life.escalation("CASE").to == "HS-LDXZ"


def test_a_revoked_red_card_takes_the_escalation_with_it() -> None:
    words = [card("2020-09-21 11:00"), card("2020-09-23 11:00", "RED_STATUTORY", "B")]
    acts = [act("appealed", "2020-09-23 14:00"), act("revoked", "2020-09-24 10:00")]
    assert ("ESCALATION", "RED", "HS-ESC-CASE", "2020-09-23 11:00", "2020-09-24 10:00 alert_revoked") in said(
        seen(words, acts, "2020-09-25 09:00")
    )


DAYS = ["2020-09-01", "2020-09-03", "2020-09-05", "2020-09-07", "2020-09-20", "2020-09-21"]


def in_month(out: Mapping[str, str], days: Iterable[str] = DAYS) -> list[tuple[str, tuple[str, ...], str]]:
    """When a department's month was escalated, on which evidence, and when that was taken back; ``out``: day of a
    card -> when it left the statistics.
    """
    lives = [
        Life(card(f"{d} 11:00", alert_id=d, case_no=d), "ISSUED", out_at=ms(out[d]) if d in out else None) for d in days
    ]
    found = life.escalated("DEPARTMENT", "HS-ZJJ/2020-09", lives, ms("2020-12-01 09:00"))
    return [(local_text(a.issued_at), a.evidence, local_text(a.revoked_at)) for a in found]


def test_the_fifth_red_card_of_a_department_in_a_month_escalates_and_the_sixth_not_again() -> None:
    assert in_month({}, DAYS[:4]) == []
    assert in_month({}) == [("2020-09-20 11:00", tuple(DAYS[:5]), "")]


def test_a_department_is_escalated_as_long_as_five_red_cards_stand() -> None:
    one_left = {"2020-09-05": "2020-09-22 09:00"}
    assert in_month(one_left) == [("2020-09-20 11:00", tuple(DAYS[:5]), "")]
    taken_back = ("2020-09-20 11:00", tuple(DAYS[:5]), "2020-09-23 09:00")
    assert in_month({**one_left, "2020-09-21": "2020-09-23 09:00"}) == [taken_back]


def test_a_red_card_that_left_before_the_sixth_came_makes_way_for_it() -> None:
    first = ("2020-09-20 11:00", tuple(DAYS[:5]), "2020-09-20 15:00")
    again = ("2020-09-21 11:00", ("2020-09-01", *DAYS[2:]), "")
    assert in_month({"2020-09-03": "2020-09-20 15:00"}) == [first, again]


def test_a_month_is_that_of_the_district_not_of_greenwich() -> None:
    assert life.month_of("HS-ZJJ", ms("2020-10-01 00:00")) == "HS-ZJJ/2020-10"
    assert life.month_of("HS-ZJJ", ms("2020-10-01 00:00") - 1) == "HS-ZJJ/2020-09"


# --- knowledge alone ---

KINDS = [*life.process("CARD").acts, "contacted", "rectified"]
BEGIN = ms("2020-09-14 00:00")
moments = st.integers(0, 40 * 24 * 60).map(lambda minutes: BEGIN + minutes * 60_000)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Word], list[Act]]:
    """Some cards of one case, some of them revoked later, and acts about them that may be heard late."""
    words = []
    for number in range(draw(st.integers(1, 3))):
        issued = draw(moments)
        after = draw(st.one_of(st.none(), st.integers(0, 10 * 1440)))
        revoked = None if after is None else issued + after * 60_000
        words.append(Word(f"W{number}", "CARD", draw(st.sampled_from(["YELLOW", "RED"])), "C1", BUREAU, issued,
                          revoked, "" if revoked is None else "late_stop"))  # fmt: skip
    acts = []
    for number in range(draw(st.integers(0, 8))):
        at = draw(moments)
        kind, who = draw(st.sampled_from(KINDS)), draw(st.sampled_from([BUREAU, DECIDER, "HS-JTJ"]))
        heard = at + draw(st.sampled_from([0, 1, 60, 3000])) * 60_000
        acts.append(Act(f"E{number}", draw(st.sampled_from(["W0", "W1", "X"])), kind, who, at, heard))
    return words, acts


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_alerts_and_acts_are_told_changes_nothing(
    history: tuple[list[Word], list[Act]], order: random.Random
) -> None:
    words, acts = history
    calm = seen(words, acts, "2020-12-01 09:00")
    order.shuffle(words)
    order.shuffle(acts)
    assert seen(words, acts, "2020-12-01 09:00") == calm


@settings(max_examples=100, deadline=None)
@given(histories(), moments)
def test_what_was_issued_by_a_moment_is_the_same_however_long_one_waits(
    history: tuple[list[Word], list[Act]], moment: int
) -> None:
    """The alerts at a horizon are those of any later horizon that were issued by then: timers decide nothing."""
    words, acts = history
    then = life.desk(words, acts, CALENDARS, "430903", moment)
    after = life.desk(words, acts, CALENDARS, "430903", ms("2020-12-01 09:00"))
    issued = {a.alert_id: a.issued_at for a in after.alerts if a.issued_at <= moment}
    assert {a.alert_id: a.issued_at for a in then.alerts} == issued
    ahead = sorted(a.issued_at for a in after.alerts if a.issued_at > moment)
    assert not ahead or (then.next_check_at is not None and then.next_check_at <= ahead[0])
