"""The recount against the product, in memory: its clock on calendars, units and pauses of all kinds, and its reading of
cases on logs in which anything may happen.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from connectors.intake.calendar import calendar_rows
from govbus import recount
from govbus.district import oracle
from govbus.district.clock import MINUTE, day_of
from streams.rules import life
from streams.rules.clock import counting_in
from streams.rules.judge import fold
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import HalfDayMode, counting
from streams.rules.state import CaseState

RULES = Path(__file__).parents[1] / "streams" / "rules"
ZONE_MINUTES = 8 * 60
OPEN = 2**53
"""A pause that has not ended, as the oracle has it."""


def beside(name: str) -> ModuleType:
    """A module of the rules' tests."""
    spec = importlib.util.spec_from_file_location(name, RULES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


slow, judging = beside("slow_clock"), beside("test_judge")


def moment(minute: int) -> int:
    return (minute - ZONE_MINUTES) * MINUTE


@pytest.mark.parametrize("seed", range(4))
def test_the_recount_counts_like_the_clock_that_looks_at_every_minute(seed: int) -> None:
    rng = random.Random(seed)
    nation, district = slow.calendars(rng, list(calendar_rows(occurred_at=0, department="HS-XZSPJ")))
    every = slow.Offices(nation, district)
    known = {(r["region"], r["year"]): r for r in (*nation, *district)}
    modes: tuple[HalfDayMode, ...] = ("BUSINESS_MINUTES", "FIXED_4H", "SESSION")
    own = {mode: recount.offices(known, counting_in(counting(), mode), "430903") for mode in modes}
    judged = 0
    for _ in range(150):
        case = slow.random_case(rng)
        wanted = slow.answer(every, case)
        pauses = [(moment(s) + rng.randrange(MINUTE), OPEN if e is None else moment(e)) for s, e in case.pauses]
        said = own[case.mode].deadlines(moment(case.accepted), case.amount + case.extension, pauses, case.unit)
        assert said.provisional == wanted.provisional
        if not wanted.provisional:
            judged += 1
            assert said.due == (None if wanted.due is None else moment(wanted.due)), case
    assert judged > 50


def test_a_fixed_half_day_has_the_minutes_that_are_set() -> None:
    how = structs.replace(counting_in(counting(), "FIXED_4H"), fixed_half_day_minutes=200)
    said = recount.offices(CALENDARS, how, "430903").deadlines(judging.ms("2020-01-15 09:00"), 0.5)
    assert said.due == judging.ms("2020-01-15 13:20")


LIMITS = ((0.5, "1", None), (1, "1", 4), (5, "1", None), (20, "1", 23), (20, "1", 45), (15, "2", None), (7, "3", None))
DAYS = st.integers(-1, 3).map(lambda n: day_of(judging.FIRST) + timedelta(days=n))
"""Days about the acceptance of a case that is drawn."""
CALENDARS = {("000000", row["year"]): row for row in calendar_rows(occurred_at=0, department="HS-XZSPJ")}
OFFICES = recount.offices(CALENDARS, counting(), "430903")
HOUR_MS = 3_600_000


DONE = st.tuples(
    st.sampled_from(("signed", "contacted", "verified", "rectified", "appealed", "revoked", "upheld", "fed_back",
                     "called_back", "closed", "assigned", "supervised")),
    st.sampled_from(("HS-XZSPJ", "HS-ZJJ", "HS-GAFJ")), st.sampled_from((0, 1, 30, 90)), st.sampled_from(("", "VALID")),
)  # fmt: skip
"""An act about a bad rating: what, by whom, how many hours after the one before, what was verified."""


@dataclass(frozen=True)
class Act:
    """Of an act, what the recount reads."""

    event_id: str
    act: str
    department: str
    occurred_at: int
    verified: str


@dataclass(frozen=True)
class Rating:
    """Of a bad rating, what the recount reads."""

    given_at: int
    issued_at: int
    department: str = "HS-ZJJ"


@settings(max_examples=400, deadline=None)
@given(st.lists(DONE, max_size=9), st.integers(0, 30))
def test_the_recount_walks_a_bad_ratings_loop_as_the_rules_do(
    told: list[tuple[str, str, int, str]], hours: int
) -> None:
    rating = Rating(judging.ms("2020-01-15 09:00"), judging.ms("2020-01-15 09:00") + hours * HOUR_MS)
    moments = accumulate((after * HOUR_MS for _, _, after, _ in told), initial=rating.given_at - HOUR_MS)
    acts = [life.Act(str(n), "A", act, by, at, 0, verified)
            for n, ((act, by, _, verified), at) in enumerate(zip(told, [*moments][1:], strict=True))]  # fmt: skip
    word = life.Word("A", "BAD_RATING", "NONE", "C", "HS-ZJJ", rating.issued_at, given_at=rating.given_at)
    wanted = life.life(word, acts, judging.references().calendars.known_at(rating.issued_at, "430903"))
    raw = [Act(a.event_id, a.type, a.department, a.occurred_at, a.verified) for a in acts]
    found = recount.loop(raw, rating, OFFICES)
    assert found == recount.Loop(wanted.out_at is not None, wanted.first("rectified") is not None)


def record(event: CaseEvent) -> dict[str, Any]:
    """What the recount reads of a published event."""
    return {
        "event_id": event.event_id, "event_type": f"case.{event.type}", "occurred_at": event.occurred_at,
        "received_at": event.known_at, "event_no": event.event_no, "special_kind_code": event.special,
        "special_started_at": event.started_at, "special_ended_at": event.ended_at,
        "extension_limit": event.extension, "extension_unit_code": event.extension_unit,
        "result_set": event.result_set, "result_code": event.result,
        "corrects_event_id": event.corrects, "corrected_at": event.corrected_at,
    }  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of ``item_event``."""

    event_type: str
    item_version: int
    occurred_at: int
    body: dict[str, Any]
    item_code: str = "I"
    region: str = "430903"
    department: str = "D"


@st.composite
def items(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Versions of one item, some of them cancelled or withdrawn."""
    told: list[dict[str, Any]] = []
    for version in range(1, draw(st.integers(1, 3)) + 1):
        promise, unit, statutory = draw(st.sampled_from(LIMITS))
        from_on = date(2004, 1, 1) if version == 1 else draw(DAYS)
        more = {"item_version": version, "promise_unit_code": unit, "effective_on": from_on,
                "item_type_code": draw(st.sampled_from(("01", "07")))}  # fmt: skip
        told.append(judging.item(promise, statutory, cancelled_on=draw(st.none() | DAYS), **more))
        if draw(st.booleans()):
            told.append({
                "event_type": "item.withdrawn", "item_version": version, "cancelled_on": draw(st.none() | DAYS),
                "occurred_at": judging.ms(f"{draw(DAYS)} {draw(st.sampled_from(('00:00', '09:30', '23:59')))}"),
            })  # fmt: skip
    return told


def stored(told: dict[str, Any]) -> Row:
    body = {k: v.isoformat() if isinstance(v, date) else v for k, v in told.items()}
    return Row(told["event_type"], told["item_version"], told["occurred_at"], body)


def read(log: list[CaseEvent], told: list[dict[str, Any]]) -> tuple[str, recount.Recount]:
    """Why the recount leaves the case out, and what it found else."""
    end = max(e.known_at for e in log) + 3000 * HOUR_MS
    state, _ = fold(CaseState("C", ()), log, judging.references(*told), end)
    derived = {"case_no": "C", "item_code": "I", "on_time": state.on_time, "due_at": state.due_at,
               "accepted_at": state.accepted_at, "horizon": end}  # fmt: skip
    standing, found = recount._corrected([record(e) for e in log]), recount.Recount()
    versions = recount.items([stored(t) for t in told])
    why = recount._unfit(standing, derived, versions["I"])
    told_of = tuple(recount._told(r) for r in recount._clocked(standing))
    course = oracle.course(told_of, end, OFFICES) if told_of else oracle.Course()
    return why or recount._case(derived, told_of, course, versions["I"], OFFICES, found), found


@settings(max_examples=400, deadline=None)
@given(judging.logs(), items())
def test_the_recount_reads_a_case_as_the_rules_do_or_leaves_it_out(
    log: list[CaseEvent], told: list[dict[str, Any]]
) -> None:
    assert read(log, told)[1].differences == []


def test_the_recount_carries_out_annulments_as_the_rules_do() -> None:
    for log, _ in judging.ANNULMENTS:
        why, found = read(log, [judging.item(5)])
        assert (why, found.differences, found.checked.total()) == ("", [], 1)


@pytest.mark.parametrize("unit", ["2", "3", "5"])
@pytest.mark.parametrize("more", [1.0, 12.0])
def test_the_recount_holds_a_promise_in_another_unit_to_the_policy(unit: str, more: float) -> None:
    log = [judging.event("accepted", "2020-09-30 10:00"),
           judging.event("extended", "2020-10-09 10:00", extension=more, extension_unit="1"),
           judging.event("decided", "2020-10-16 17:00", event_no=2)]  # fmt: skip
    told = judging.item(50, rule="R5-M", promise_unit_code=unit, item_type_code="01")
    for events in (log[:1], log[::2], log):
        why, found = read(events, [told])
        assert (why, found.differences, found.checked.total()) == ("", [], 1)


def test_a_correction_received_before_it_was_asked_for_waits_for_that() -> None:
    log = [judging.event("submitted", "2020-01-15 09:00"), judging.event("correction_received", "2020-01-15 09:00"),
           judging.event("correction_requested", "2020-01-15 09:30")]  # fmt: skip
    why, found = read(log, [judging.item(0.5)])
    assert (why, found.checked.total(), found.differences) == ("", 1, [])


@pytest.mark.parametrize(("number", "kind", "start"), [(1, "ended", "09:00"), (2, "started", "10:00")])
def test_two_starts_of_one_procedure_and_one_start_of_two_are_left_out(number: int, kind: str, start: str) -> None:
    began, ended = (judging.ms(f"2020-01-15 {at}") for at in (start, "11:00"))
    told = {"event_no": number, "started_at": began, "ended_at": ended}
    log = [judging.event("submitted", "2020-01-15 09:00"), judging.event("accepted", "2020-01-15 09:00"),
           judging.event("special_started", "2020-01-15 10:00", event_no=1),
           judging.event(f"special_{kind}", "2020-01-15 11:00", **told)]  # fmt: skip
    assert read(log, [judging.item(5)])[0] == "特别程序的开始与结束不能一一对应"


@pytest.mark.parametrize(
    ("other", "end"),
    [
        ({"special": "SITE"}, {}),  # of one number a procedure that stops the clock and one that does not: whose end?
        ({"event_no": 2, "ended_at": judging.FIRST}, {"special": "SITE"}),  # two of one moment, one of which ended
    ],
)
def test_procedures_of_one_moment_that_an_end_does_not_tell_apart_are_left_out(
    other: dict[str, Any], end: dict[str, Any]
) -> None:
    at = "2020-01-15 09:00"
    log = [judging.event("submitted", at), judging.event("accepted", at), judging.event("special_started", at),
           structs.replace(judging.event("special_started", at, **other), event_id="other"),
           judging.event("special_ended", at, **end)]  # fmt: skip
    why, found = read(log, [judging.item(0.5)])
    assert (why, found.differences) == ("特别程序的开始与结束不能一一对应", [])
