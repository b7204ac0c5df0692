"""Three start-up steps that share half a day, a project that spans departments, bundles: DOMAIN 4.1 by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pytest

from connectors.intake.calendar import calendar_rows
from streams.rules import groups, judge
from streams.rules.calendar import DAY_MINUTES, CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.groups import GroupState
from streams.rules.judge import References
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions

PUBLISHED = [
    Publication.of({**row, "received_at": 0})
    for row in calendar_rows(2019, 2021, occurred_at=0, department="HS-XZSPJ")
]
PROJECT, BUNDLE = "project/430903/2005-430903-04-01-000001", "bundle/430903/QY-0001"
STEPS = {"registration": "HS-SCJGJ", "seal": "HS-GAFJ", "invoice": "HS-CZJ", "social": "HS-RSJ"}


def ms(text: str) -> int:
    at = datetime.fromisoformat(text)
    return epoch_ms(day_of(at.date()) * DAY_MINUTES + at.hour * 60 + at.minute)


def event(item: str, kind: str, at: str, received: str | None = None, **more: Any) -> CaseEvent:
    department = STEPS.get(item, "HS-ZJJ")
    name = f"{item}-{kind}-{at}"
    where = {"bundle": "QY-0001"} if item in STEPS else {"project": PROJECT.rpartition("/")[2]}
    return CaseEvent(name, kind, "430903", department, item, ms(at), ms(received or at), **(where | more))


def known(**rules: str) -> References:
    """Items by name with the rule each falls under."""
    items = {
        code: item_versions(
            [{"event_type": "item.published", "item_version": 1, "occurred_at": 0, "promise_limit": 20,
              "promise_unit_code": "1", "limit_rule": rule, "effective_on": date(2004, 1, 1)}]
        )
        for code, rule in rules.items()
    }  # fmt: skip
    return References(CalendarHistory(PUBLISHED), items)


START_UP = known(registration="R2", seal="R2", invoice="R2")


def told(key: str, members: Mapping[str, Sequence[CaseEvent]], references: References, now: str) -> GroupState:
    return groups.derive(key, members, references, ms(now), {})[0]


def cards(state: GroupState) -> list[tuple[str, str]]:
    return [(a.rule_id, judge.local_text(a.issued_at)) for a in state.alerts]


def due(state: GroupState) -> str:
    return judge.local_text(state.due_at)


# --- R2: three steps, half a working day together ---------------------------------------------------------------------


def start_up(accepted: str, invoice_done: str) -> dict[str, list[CaseEvent]]:
    return {
        "A": [event("registration", "accepted", accepted), event("registration", "decided", "2020-09-27 10:00")],
        "B": [event("seal", "accepted", "2020-09-27 10:00"), event("seal", "decided", "2020-09-27 11:00")],
        "C": [event("invoice", "accepted", "2020-09-27 11:30"), event("invoice", "decided", invoice_done)],
    }


def test_a_part_that_names_a_handling_item_is_a_part_all_the_same() -> None:
    permit = "11430903MBDEM011134000117024000"
    members = {"A": [event(permit + "01", "accepted", "2020-05-18 10:00")]}
    assert due(told(PROJECT, members, known(**{permit: "R6-5"}), "2020-05-19 10:00")) == "2020-07-14 17:00"


def test_01_three_start_up_steps_share_half_a_day_to_its_last_minute() -> None:
    state = told(BUNDLE, start_up("2020-09-25 16:50", "2020-09-27 13:20"), START_UP, "2020-10-20 09:00")
    assert (due(state), state.on_time, state.used_minutes, state.stage) == ("2020-09-27 13:20", True, 210, "AFTER")
    assert cards(state) == [("HS-CARD-GROUP-Y", "2020-09-27 11:38")]


def test_01_an_invoice_one_minute_later_gets_the_three_of_them_a_red_card() -> None:
    state = told(BUNDLE, start_up("2020-09-25 16:50", "2020-09-27 13:21"), START_UP, "2020-10-20 09:00")
    assert (state.on_time, state.department) == (False, "HS-SCJGJ")
    assert cards(state)[1] == ("HS-CARD-GROUP-R", "2020-09-27 13:21")


def test_02_seven_days_off_bring_three_start_up_steps_no_card() -> None:
    members = {"A": [event("registration", "accepted", "2021-09-30 16:50")]}
    state = told(BUNDLE, members, START_UP, "2021-10-08 11:37")
    assert (due(state), cards(state)) == ("2021-10-08 13:20", [])
    assert judge.local_text(state.next_check_at) == "2021-10-08 11:38"


def test_a_step_that_was_never_begun_keeps_the_start_up_open() -> None:
    members = start_up("2020-09-25 16:50", "2020-09-27 12:00")
    del members["B"]
    state = told(BUNDLE, members, START_UP, "2020-09-28 09:00")
    assert (state.on_time, cards(state)[1]) == (None, ("HS-CARD-GROUP-R", "2020-09-27 13:21"))


SOCIAL = [event("social", "accepted", "2020-09-27 10:00"), event("social", "decided", "2020-09-29 16:00")]
"""Social insurance: applied for in the same bundle, and none of the three steps (DOMAIN 4.1, R2)."""


def test_what_is_applied_for_beside_the_three_steps_does_not_hold_up_their_clock() -> None:
    members = {**start_up("2020-09-25 16:50", "2020-09-27 13:20"), "D": SOCIAL}
    state = told(BUNDLE, members, known(registration="R2", seal="R2", invoice="R2", social=""), "2020-10-20 09:00")
    assert (judge.local_text(state.ended_at), state.on_time, len(state.parts)) == ("2020-09-27 13:20", True, 4)
    assert [name for name, _ in cards(state)] == ["HS-CARD-GROUP-Y"]


def test_nor_does_it_stand_for_a_step_that_was_never_begun() -> None:
    soon = event("social", "decided", "2020-09-27 10:30")
    members = {**start_up("2020-09-25 16:50", "2020-09-27 13:20"), "C": [SOCIAL[0], soon]}
    state = told(BUNDLE, members, known(registration="R2", seal="R2", invoice="R2", social=""), "2020-09-28 09:00")
    assert (state.on_time, cards(state)[1]) == (None, ("HS-CARD-GROUP-R", "2020-09-27 13:21"))


def test_a_start_up_whose_applicant_withdraws_one_step_has_ended() -> None:
    accepted = event("registration", "accepted", "2020-09-25 16:50")
    members = {"A": [accepted, event("registration", "withdrawn", "2020-09-27 09:30")]}
    assert cards(told(BUNDLE, members, START_UP, "2020-10-28 09:00")) == []


@pytest.mark.parametrize("ended", ["withdrawn", "not_accepted", "returned"])
def test_a_start_up_of_which_a_step_came_to_nothing_before_it_was_accepted_has_ended(ended: str) -> None:
    members = {
        "A": [event("registration", kind, f"2020-10-12 {at}:00") for kind, at in (("accepted", 10), ("decided", 10))],
        "B": [event("seal", "submitted", "2020-10-12 10:00"), event("seal", ended, "2020-10-12 10:20")],
    }
    state = told(BUNDLE, members, START_UP, "2020-10-28 09:00")
    assert (judge.local_text(state.ended_at), state.on_time, cards(state)) == ("2020-10-12 10:20", True, [])


def test_a_project_does_not_end_with_an_application_that_was_never_accepted() -> None:
    members = {
        "A": [event("permit", "accepted", "2020-05-18 10:00"), event("permit", "decided", "2020-06-18 10:00")],
        "B": [
            event("lift", "submitted", "2020-05-18 10:00"),
            event("lift", "correction_requested", "2020-05-19 10:00"),
            event("lift", "withdrawn", "2020-12-18 10:00"),
        ],
    }
    state = told(PROJECT, members, known(permit="R6-5", lift="R6-5"), "2020-12-28 09:00")
    assert (judge.local_text(state.ended_at), state.on_time) == ("2020-06-18 10:00", True)


@pytest.mark.parametrize(
    "end", [{"kind": "voided"}, {"kind": "decided", "result_set": "province.result-older", "result": "3"}]
)
def test_a_step_that_was_deleted_by_its_result_never_was_as_one_that_was_voided(end: dict[str, str]) -> None:
    kind, more = end["kind"], {name: value for name, value in end.items() if name != "kind"}
    deleted = [event("registration", "accepted", "2020-10-12 09:00")]
    deleted += [event("registration", kind, "2020-10-12 10:00", **more)]
    again = [
        [event(step, "accepted", f"2020-10-14 {at}:00"), event(step, "decided", f"2020-10-14 {at}:30")]
        for step, at in (("registration", "09"), ("seal", "10"), ("invoice", "11"))
    ]
    state = told(BUNDLE, {"0": deleted, **dict(zip("ABC", again, strict=True))}, START_UP, "2020-10-28 09:00")
    assert (judge.local_text(state.accepted_at), state.on_time, cards(state)) == ("2020-10-14 09:00", True, [])


@pytest.mark.parametrize("code", ["无", "0", "/", "——", "000000", " "])
def test_what_names_nothing_makes_no_group(code: str) -> None:
    """Thousands of cases may have it in the field, and nothing else in common."""
    assert groups.keys([event("permit", "accepted", "2020-05-18 10:00", project=code, bundle=code)]) == ()


def test_a_bundle_without_a_clock_is_seen_once_however_many_moments_it_has() -> None:
    members = {f"C{n}": [event("seal", "accepted", "2020-05-18 10:00", f"2020-05-18 10:{n:02}")] for n in range(60)}
    state = told(BUNDLE, members, known(seal=""), "2020-05-19 10:00")
    assert (state.stage, len(state.parts), state.alerts) == ("DURING", 60, ())


def test_a_bundle_is_visible_before_during_and_after() -> None:
    papers = [event("seal", "submitted", "2020-09-25 16:00"), event("seal", "accepted", "2020-09-25 16:30")]
    members = {"A": [*papers, event("seal", "decided", "2020-09-25 16:40")]}
    references = known(seal="")
    stages = [told(BUNDLE, members, references, f"2020-09-25 {at}") for at in ("16:29", "16:30", "16:40")]
    assert [(s.stage, s.parts[0].status) for s in stages] == [
        ("BEFORE", "SUBMITTED"), ("DURING", "ACCEPTED"), ("AFTER", "GRANTED"),
    ]  # fmt: skip
    assert [(s.due_at, s.alerts) for s in stages] == [(None, ())] * 3


# --- what a joint application consists of before anything is applied for ----------------------------------------------


def version(number: int, since: date, *bundles: str, until: date | None = None) -> dict[str, Any]:
    return {"event_type": "item.published", "item_version": number, "occurred_at": 0, "promise_limit": number * 1.0,
            "promise_unit_code": "1", "effective_on": since, "cancelled_on": until, "bundle_codes": list(bundles),
            "name": f"第{number}版", "department": "HS-SCJGJ"}  # fmt: skip


@pytest.mark.parametrize(
    ("day", "parts"),
    [
        (date(2019, 12, 31), []),
        (date(2020, 1, 1), [("seal", 1.0)]),
        (date(2020, 6, 1), [("registration", 2.0), ("seal", 1.0)]),
        (date(2020, 9, 1), [("registration", 2.0)]),
    ],
)
def test_a_joint_application_consists_of_the_items_whose_version_in_force_says_so(
    day: date, parts: list[tuple[str, float]]
) -> None:
    items = {
        "seal": [version(1, date(2020, 1, 1), "KB", "other", until=date(2020, 9, 1))],
        "registration": [version(1, date(2020, 1, 1)), version(2, date(2020, 6, 1), "KB")],
        "invoice": [version(1, date(2020, 1, 1), "other")],
    }
    assert [(p.item_code, p.promise.amount) for p in groups.plan("KB", items, day_of(day))] == parts


# --- R6: a construction project ---------------------------------------------------------------------------------------

FIRST = event("land", "accepted", "2020-05-18 10:00")


@pytest.mark.parametrize(
    ("rules", "limit_rule", "last_day"),
    [
        (("R6-5", "R6-4", "R6-3", "R6-1", "R6-6"), "R6-5", "2020-07-14"),
        (("R6-6", "R6-3", "R6-4"), "R6-4", "2020-07-30"),
        (("R6-1", "R6-3"), "R6-3", "2020-08-17"),
        (("R6-6", "R6-1"), "R6-1", "2020-09-04"),
        (("R6-6", "R6-2"), "R6-2", "2020-09-10"),
        (("R6-6",), "R6-6", "2020-10-12"),
    ],
)
def test_a_project_is_of_the_first_class_that_matches(rules: tuple[str, ...], limit_rule: str, last_day: str) -> None:
    members = {f"C{n}": [event(rule, "accepted", "2020-05-18 10:00")] for n, rule in enumerate(rules)}
    state = told(PROJECT, members, known(**{rule: rule for rule in rules}), "2020-05-18 11:00")
    assert (state.limit_rule, due(state)) == (limit_rule, f"{last_day} 17:00")


CLASS_5 = known(land="R6-5", plan="R6-6")
PAUSED = [
    event("land", "special_started", "2020-05-25 09:00", special="EXPERT"),
    event("land", "special_ended", "2020-06-01 09:00", special="EXPERT"),
]


def test_a_special_procedure_does_not_pause_the_project_while_another_sub_case_runs() -> None:
    members = {"A": [FIRST, *PAUSED], "B": [event("plan", "accepted", "2020-05-20 10:00")]}
    assert due(told(PROJECT, members, CLASS_5, "2020-06-02 09:00")) == "2020-07-14 17:00"


def test_it_pauses_the_project_from_when_no_other_runs() -> None:
    other = [event("plan", "accepted", "2020-05-20 10:00"), event("plan", "decided", "2020-05-27 17:00")]
    members = {"A": [FIRST, *PAUSED], "B": other}  # 05-28 and 05-29 are not counted
    assert due(told(PROJECT, members, CLASS_5, "2020-06-02 09:00")) == "2020-07-16 17:00"


def test_while_the_only_sub_case_is_paused_the_project_has_no_due_time_and_no_card() -> None:
    state = told(PROJECT, {"A": [FIRST, PAUSED[0]]}, CLASS_5, "2021-06-02 09:00")
    assert (due(state), state.alerts) == ("", ())


def test_time_in_which_no_sub_case_is_open_is_not_the_offices_time() -> None:
    done = event("land", "decided", "2020-05-27 17:00")
    alone = told(PROJECT, {"A": [FIRST, done]}, CLASS_5, "2020-05-28 09:00")
    assert (due(alone), alone.stage, alone.on_time) == ("", "AFTER", True)
    members = {"A": [FIRST, done], "B": [event("plan", "accepted", "2020-06-01 09:00")]}
    state = told(PROJECT, members, CLASS_5, "2020-06-01 10:00")
    assert (due(state), state.stage, state.on_time) == ("2020-07-16 17:00", "DURING", None)


def test_a_project_over_its_limit_gets_one_red_card_that_names_the_lead_and_all_acceptances() -> None:
    members = {"A": [FIRST], "B": [event("plan", "accepted", "2020-06-20 10:00")]}
    state, decisions = groups.derive(PROJECT, members, CLASS_5, ms("2020-07-14 17:01"), {})
    assert cards(state) == [("HS-CARD-GROUP-Y", "2020-07-02 17:00"), ("HS-CARD-GROUP-R", "2020-07-14 17:01")]
    assert [d.department for d in decisions] == ["HS-ZJJ", "HS-ZJJ"]
    assert state.alerts[1].evidence == ("land-accepted-2020-05-18 10:00", "plan-accepted-2020-06-20 10:00")
    assert judge.alert_record(state.key, decisions[1])["summary"] == (
        f"红牌：{PROJECT} 已超过全流程时限（2020-07-14 17:00），请牵头部门立即协调并说明原因。"
    )


def _permit(decided: str, told: str = "") -> list[CaseEvent]:
    """A sub-case of 40 working days, due on 2020-07-14 17:00."""
    return [
        event("permit", "accepted", "2020-05-18 10:00", told or None),
        event("permit", "decided", decided, told or None),
    ]


@pytest.mark.parametrize(
    ("decided", "told_at", "red"),
    [
        ("2020-08-20 10:00", "2020-08-21 09:00", "2020-08-21 09:00"),  # both entered late
        ("2020-07-14 17:01", "", "2020-07-14 17:01"),  # ended in the minute of the card
        ("2020-07-14 16:59", "2020-08-21 09:00", ""),  # entered late, done in time
    ],
)
def test_a_project_that_ended_late_gets_its_red_card_whenever_that_is_told(
    decided: str, told_at: str, red: str
) -> None:
    state = told(PROJECT, {"A": _permit(decided, told_at)}, known(permit="R6-5"), "2020-12-28 09:00")
    assert state.on_time is not bool(red)
    assert [at for rule, at in cards(state) if rule == "HS-CARD-GROUP-R"] == ([red] if red else [])


def test_a_class_that_is_told_after_the_end_and_was_missed_brings_the_red_card() -> None:
    """At first it was a project of 60 working days, and in time."""
    members = {
        "A": [event("slow", "accepted", "2020-05-18 10:00"), event("slow", "decided", "2020-07-20 10:00")],
        "B": _permit("2020-07-20 10:00", "2020-08-21 09:00"),
    }
    rules = known(slow="R6-6", permit="R6-5")
    before = told(PROJECT, {"A": members["A"]}, rules, "2020-08-20 09:00")
    state = told(PROJECT, members, rules, "2020-12-28 09:00")
    assert (before.on_time, state.on_time) == (True, False)
    assert cards(state)[-1] == ("HS-CARD-GROUP-R", "2020-08-21 09:00")


def test_the_end_of_a_special_procedure_that_comes_before_its_start_brings_no_red_card() -> None:
    """The start says that the clock stood still: it is waited for, as with a single case (narrative 10)."""
    members = {
        "A": [
            event("permit", "accepted", "2020-05-18 10:00"),
            event("permit", "special_ended", "2020-07-14 16:00", special="HEARING"),
            event("permit", "special_started", "2020-05-25 09:00", "2020-07-14 19:00", special="HEARING"),
        ]
    }
    state = told(PROJECT, members, known(permit="R6-5"), "2020-07-20 09:00")
    assert [card for card in cards(state) if card[0] == "HS-CARD-GROUP-R"] == []


def test_a_sub_case_told_late_moves_the_class_and_takes_the_card_back() -> None:
    """By what was known in July the project was of class 5; that its land case was void came to light in August."""
    members = {
        "A": [FIRST, event("land", "voided", "2020-08-03 10:00")],
        "B": [event("plan", "accepted", "2020-05-18 10:00")],
    }
    state = told(PROJECT, members, CLASS_5, "2020-08-04 09:00")
    assert (state.limit_rule, due(state)) == ("R6-6", "2020-10-12 17:00")
    assert {(a.revoked_at, a.revoked_reason) for a in state.alerts} == {(ms("2020-08-03 10:00"), "case_voided")}


def test_silence_makes_a_sub_case_accepted_and_the_project_begins_with_its_receipt() -> None:
    members = {"A": [event("land", "submitted", "2020-09-24 16:00")]}
    before = told(PROJECT, members, CLASS_5, "2020-09-30 17:00")
    assert (before.stage, before.accepted_at, judge.local_text(before.next_check_at)) == (
        "BEFORE", None, "2020-09-30 17:01",
    )  # fmt: skip
    after = told(PROJECT, members, CLASS_5, "2020-09-30 17:01")
    assert (after.stage, judge.local_text(after.accepted_at)) == ("DURING", "2020-09-24 16:00")


# --- a function of the sets -------------------------------------------------------------------------------------------


def test_a_case_names_its_groups_with_any_of_its_events() -> None:
    plain = CaseEvent("e", "decided", "430903", "HS-ZJJ", "x", 0, 0)
    assert groups.keys([plain, FIRST]) == (PROJECT,)
    assert groups.keys([plain]) == ()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_order_of_members_and_the_looks_between_the_project_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    members = {f"C{n}": _random_case(rng, n) for n in range(4)}
    end = ms("2021-06-01 09:00")
    whole, _ = groups.derive(PROJECT, members, CLASS_5, end, {})
    shuffled = dict(sorted(members.items(), key=lambda _: rng.random()))
    spoken: Mapping[str, Any] = {}
    for at in sorted(rng.sample(range(ms("2020-05-18 09:00"), end, 3_600_000), 5)):
        spoken = groups.derive(PROJECT, shuffled, CLASS_5, at, spoken)[0].spoken
    last, _ = groups.derive(PROJECT, shuffled, CLASS_5, end, spoken)
    assert last == whole
    standing = {i: s.action for i, s in last.spoken.items()}
    assert standing == {a.alert_id: "ISSUED" if a.revoked_at is None else "REVOKED" for a in whole.alerts}


def _random_case(rng: random.Random, number: int) -> list[CaseEvent]:
    kinds = ["accepted", *rng.choices(("special_started", "special_ended", "decided", "withdrawn", "voided"), k=3)]
    at, known_at = ms("2020-05-18 09:00") + rng.randrange(200) * 3_600_000, 0
    found: list[CaseEvent] = []
    for kind in kinds:
        at += rng.randrange(800) * 3_600_000
        known_at = max(known_at, at + rng.choice((0, 0, 90)) * 3_600_000)
        item = rng.choice(("land", "plan"))
        name = f"{number}-{kind}-{len(found)}"
        found.append(CaseEvent(name, kind, "430903", "HS-ZJJ", item, at, known_at, project=PROJECT.rpartition("/")[2]))
    return found
