"""The short way of judging an ordinary case against the long one: the same state whatever comes, or no short way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from msgspec import structs

from connectors.intake.calendar import calendar_row
from streams.rules import judge, plain
from streams.rules.calendar import CalendarHistory, Hours, Publication, day_of, epoch_ms
from streams.rules.claims import Claim
from streams.rules.judge import References, fold
from streams.rules.lifecycle import RANK, CaseEvent
from streams.rules.limits import ItemVersion, Limit, item_versions
from streams.rules.state import CaseState

HOUR = 3_600_000
FIRST = epoch_ms(day_of(date(2020, 8, 3)) * 1440 + 540)
HEARD = FIRST + 100 * 24 * HOUR
ITEM = "11430903MBDEM0138T4000115002000"
LIFE = ("submitted", "accepted", "step_completed", "decided", "certified", "delivered")
STEPS = [{"step_name": "审查", "step_limit": 2, "step_unit_code": "1"}]
ODD: Sequence[Mapping[str, Any]] = (
    {"special": "9", "started_at": FIRST}, {"special": "9", "ended_at": FIRST + 9000 * HOUR}, {"started_at": FIRST},
    {"corrected_at": FIRST}, {"corrected_at": FIRST}, {"special": "1"},
    {"acceptance": "2"}, {"acceptance": "2", "verify_by": HEARD}, {"corrects": "1-0"}, {"corrects": "1-1"},
    {"reasoned": False}, {"result_set": "province.result-older", "result": "2"}, {"extension": 5.0},
    {"result_set": "province.result-newer", "result": "6"}, {"step": "审查"}, {"type": "withdrawn"},
)  # fmt: skip


def calendar(year: int, revision: int = 1, received: int = 0, **more: Any) -> Publication:
    row = calendar_row(year, occurred_at=0, department="HS-XZSPJ", region="000000", revision=revision)
    return replace(Publication.of({**row, "received_at": received}), **more)


EARLIER = (Hours(day_of(date(2020, 1, 1)), None, ((510, 720), (810, 1020))),)
CALENDARS = (
    [calendar(2020), calendar(2021)],
    [calendar(2020), calendar(2021), calendar(2020, 2, HEARD, hours=EARLIER)],
    [calendar(2020), calendar(2021, 1, HEARD)],
    [calendar(2020)],
)


def items(rng: random.Random) -> dict[str, tuple[ItemVersion, ...]]:
    record = {
        "event_type": "item.published", "item_version": 1, "occurred_at": 0, "effective_on": date(2004, 1, 1),
        "promise_limit": rng.choice((0.5, 5, 20, 20, 60)), "promise_unit_code": rng.choice(("1", "1", "1", "2", "3")),
        "statutory_limit": rng.choice((None, 30)), "statutory_unit_code": rng.choice(("1", "2")),
        "item_type_code": rng.choice(("01", "01", "05")), "steps": rng.choice(((), (), (), (), STEPS)),
        "cancelled_on": rng.choice((None, None, None, date(2020, 8, 20))), "limit_rule": rng.choice(("", "", "R2")),
    }  # fmt: skip
    return {ITEM: item_versions([record])}


def life(rng: random.Random) -> list[CaseEvent]:
    """Mostly what a case goes through, in order and told at once; now and then something else."""
    at, made = FIRST + rng.randrange(3500) * HOUR, []
    kinds = [k for k in LIFE[: rng.randint(2, 6)] if rng.random() < 0.95]
    for place, kind in enumerate(kinds or LIFE[:2]):
        at += rng.choice((0, 0, 1, 2, 5, 20, 60, 200)) * HOUR + rng.randrange(HOUR)
        told = rng.choice(tuple(RANK)) if rng.random() < 0.05 else kind
        one = CaseEvent(f"1-{place}", told, "430903", rng.choice(("HS-ZRZYJ", "HS-XZSPJ")), ITEM, at, at, place)
        if rng.random() < 0.08:
            one = structs.replace(one, **rng.choice(ODD))
        if rng.random() < 0.2:
            one = structs.replace(one, responsible=rng.choice(("HS-GAJ", "HS-RSJ")))
        made.append(structs.replace(one, known_at=at + rng.choice((0, 0, 0, 0, 0, 30, 200)) * HOUR))
    return sorted(made, key=lambda e: e.known_at)


class Both:
    """``plain.derive``, held to what the long way comes to each time."""

    def __init__(self) -> None:
        self.short: Counter[str] = Counter()
        self.long = 0
        self._derive = plain.derive

    def __call__(
        self, case_no: str, events: tuple[CaseEvent, ...], calendars: CalendarHistory,
        known: Mapping[str, tuple[ItemVersion, ...]], horizon: int, quiet: int,
    ) -> CaseState | None:  # fmt: skip
        found = self._derive(case_no, events, calendars, known, horizon, quiet)
        if found is None:
            self.long += 1
        else:
            self.short[found.status] += 1
            assert found == judge._derive(case_no, events, References(calendars, known), horizon, quiet)
        return found


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    held = Both()
    monkeypatch.setattr(plain, "derive", held)
    return held


def lived(rng: random.Random) -> None:
    """One case as a worker judges it: its events one or two at a time, a look whenever one is due or just so, and the
    marks of a calendar that comes in between.
    """
    calendars, known = CalendarHistory(rng.choice(CALENDARS)), items(rng)
    told, state, heard = life(rng), CaseState("C", ()), False
    while told:
        take = rng.choice((1, 1, 1, 2))
        now, told = told[:take], told[take:]
        claims = {"C": (Claim("r", 1, 1, 0, True, now[0].known_at),)} if rng.random() < 0.02 else {}
        state, _ = fold(state, now, References(calendars, known, claims), 0)
        until = told[0].known_at if told else state.known_at + 2000 * HOUR
        if not heard and state.known_at < HEARD <= until:
            state, heard = structs.replace(state, next_check_at=-HEARD), True
            state, _ = fold(state, (), References(calendars, known), HEARD)
        for _ in range(5):
            if state.next_check_at is not None and state.next_check_at < until:
                state, _ = fold(state, (), References(calendars, known), state.next_check_at + rng.randrange(3) * HOUR)


@pytest.mark.parametrize("seed", range(10))
def test_the_short_way_comes_to_what_the_long_one_comes_to(seed: int, both: Both) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        lived(rng)
    assert min(both.short[s] for s in ("ACCEPTED", "IN_PROCESS", "GRANTED", "CERTIFIED", "DELIVERED")) > 3
    assert sum(both.short.values()) > 100
    assert both.long > 100


def test_an_ordinary_case_is_judged_the_short_way_and_one_with_a_special_procedure_is_not(both: Both) -> None:
    known = References(CalendarHistory(CALENDARS[0]), items(random.Random(1)))
    state, at = CaseState("C", ()), FIRST
    for place, kind in enumerate(("submitted", "accepted", "special_started")):
        at += 10 * 60_000
        event = CaseEvent(f"1-{place}", kind, "430903", "HS-ZRZYJ", ITEM, at, at, place)
        state, _ = fold(state, [event], known, 0)
    assert (both.short, both.long) == ({"ACCEPTED": 1}, 1)


def test_a_submission_told_after_its_late_acceptance_is_not_judged_the_short_way(both: Both) -> None:
    (version,) = items(random.Random(1))[ITEM]
    long = {ITEM: (replace(version, promise=Limit(60.0), statutory=None, steps=(), cancelled=None),)}
    known, week = References(CalendarHistory(CALENDARS[0]), long), 7 * 24 * HOUR
    accepted = CaseEvent("1", "accepted", "430903", "HS-ZRZYJ", ITEM, HEARD, HEARD)
    submitted = CaseEvent("2", "submitted", "430903", "HS-ZRZYJ", ITEM, HEARD - 2 * week, HEARD + HOUR)
    state, _ = fold(CaseState("C", ()), [accepted], known, 0)
    state, _ = fold(state, [submitted], known, 0)
    assert [a.rule_id for a in state.alerts] == ["deemed_accepted"]
    assert (both.short, both.long) == ({}, 1)
