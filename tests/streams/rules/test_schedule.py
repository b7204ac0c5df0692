"""Whom a calendar concerns; and that whoever it does not concern would be judged just as before."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from msgspec import structs

from connectors.intake.calendar import calendar_row
from streams.rules.calendar import CalendarHistory, Publication, day_of, epoch_ms
from streams.rules.judge import References, fold
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions
from streams.rules.schedule import Concern, concern
from streams.rules.state import CaseState

HOUR = 3_600_000
FIRST = epoch_ms(day_of(date(2020, 8, 3)) * 1440 + 540)
HEARD = FIRST + 60 * 24 * HOUR
ITEM = "11430903MBDEM0138T4000115002000"


def calendar(year: int, revision: int = 1, received: int = 0, region: str = "000000", **more: Any) -> Publication:
    row = calendar_row(year, occurred_at=0, department="HS-XZSPJ", region=region, revision=revision)
    return Publication.of({**row, "received_at": received, **more})


KNOWN = [calendar(2020), calendar(2021)]


def test_a_revision_concerns_who_counts_a_day_it_changed() -> None:
    revised = replace(calendar(2020, 2, HEARD), days=(*KNOWN[0].days, (day_of(date(2020, 10, 20)), False)))
    day = day_of(date(2020, 10, 20))
    found = concern(revised, [*KNOWN, revised])
    assert found == Concern("000000", ((day, day),), HEARD)
    assert found.moments == ((epoch_ms(day * 1440), epoch_ms((day + 1) * 1440) - 1),)


def test_the_first_calendar_of_a_year_concerns_who_counts_into_that_year() -> None:
    assert concern(calendar(2022, 1, HEARD), KNOWN).days == ((day_of(date(2022, 1, 1)), day_of(date(2022, 12, 31))),)
    own = calendar(2020, 1, HEARD, "430903")
    assert concern(own, KNOWN) == Concern("430903", ((day_of(date(2020, 1, 1)), day_of(date(2020, 12, 31))),), HEARD)


def test_a_revision_that_comes_after_a_higher_one_concerns_everybody() -> None:
    assert concern(calendar(2020, 2, HEARD), [*KNOWN, calendar(2020, 3)]).days is None


KINDS = ("special_started", "special_ended", "extended", "decided", "withdrawn", "certified", "delivered", "corrected")


def case(rng: random.Random, number: int) -> list[CaseEvent]:
    at = FIRST + rng.randrange(1000) * HOUR
    made: list[CaseEvent] = []
    kinds = ("submitted", "accepted", *rng.choices(KINDS, k=rng.randrange(6)))
    for place, kind in enumerate(kinds[rng.randrange(2) :]):
        at += rng.randrange(100) * HOUR
        heard = at + rng.choice((0, 0, 0, 200)) * HOUR
        one = CaseEvent(f"{number}-{place}", kind, "430903", "HS-ZRZYJ", ITEM, at, heard, place)
        if kind == "corrected" and made:
            moved, by = rng.choice(made), rng.randint(-90, 90) * HOUR
            one = structs.replace(one, corrects=moved.event_id, corrected_at=moved.occurred_at + by)
        made.append(structs.replace(one, extension=3.0) if kind == "extended" else one)
    return made


def references(rng: random.Random, *calendars: Publication) -> References:
    item = {
        "event_type": "item.published", "item_version": 1, "occurred_at": 0, "effective_on": date(2004, 1, 1),
        "promise_limit": rng.choice((0.5, 5, 20)), "promise_unit_code": rng.choice(("1", "1", "2")),
        "statutory_limit": rng.choice((None, 30)), "statutory_unit_code": "1", "item_type_code": "01",
    }  # fmt: skip
    return References(CalendarHistory(calendars), {ITEM: item_versions([item])})


@pytest.mark.parametrize("seed", range(50))
def test_a_case_that_a_calendar_does_not_concern_is_judged_as_before(seed: int) -> None:
    rng = random.Random(seed)
    off = date(2020, 8, 3) + timedelta(rng.randrange(200))
    revised = replace(calendar(2020, 2, HEARD), days=tuple(sorted({**dict(KNOWN[0].days), day_of(off): False}.items())))
    new = rng.choice((revised, revised, calendar(2021, 1, HEARD)))
    old = KNOWN if new is revised else KNOWN[:1]
    ranges = concern(new, old).moments
    for number in range(20):
        items = rng.randrange(1 << 30)
        before, after = (references(random.Random(items), *c) for c in (old, [*old, new]))
        events, end = case(rng, number), HEARD + rng.randrange(3000) * HOUR
        was, _ = fold(CaseState("C", ()), events, before, end)
        if was.known_at <= HEARD and not any(was.counted_from <= t and (was.counted_to or t) >= f for f, t in ranges):
            assert fold(CaseState("C", ()), events, after, end)[0] == was
