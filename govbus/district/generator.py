"""Builds the whole simulated district from a seed: the same seed gives the same rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from govbus.district import cases, clock, faults, items, ratings, records
from govbus.district.model import HESHAN, REGIONS, District, Item, Row, Span, Story, Told
from govbus.district.ratings import Opinion
from govbus.district.records import Licence, Resource
from schemas.topics import CALENDAR

FIRST, LAST = date(2020, 1, 2), date(2020, 12, 31)
SPAN = Span(clock.at(FIRST, 8 * 60), clock.at(LAST, 18 * 60))
KNOWN_BEFORE = clock.at(date(2019, 12, 2), 9 * 60)
REVISION_HEARD = clock.at(date(2020, 2, 5), 9 * 60)
"""When the revised calendar of 2020 reaches the bus (DOMAIN §10, narrative 6)."""
YEARS = range(2004, 2027)
CLOSING_CASES = 200  # enough for every partition of the topic to hear that the year is over
EVERY_PUBLISHER = "HS-XZSPJ"
FINISHED = ("case.decided",)
LIVE_EVERY_MS = 5


@dataclass(frozen=True, slots=True)
class Made:
    """The district and what its makers know: the oracle's material."""

    district: District
    opinions: tuple[Opinion, ...]
    licences: tuple[Licence, ...]
    resources: tuple[Resource, ...]


def make(seed: int, count: int = 2_000, live: int = 2_000) -> Made:
    """A working year with ``count`` cases, then ``live`` ratings in quick succession."""
    rng = random.Random(seed)
    catalogue = items.build(rng, 10)
    stories = _stories(rng, catalogue, count)
    said = [
        o
        for s in stories
        if (end := finished(s)) and rng.random() < 0.7
        for o in ratings.opinions(rng, s, end, SPAN.end)
    ]
    kept = tuple(_licences(rng, stories, count // 10))
    resources = tuple(_resources(rng))
    good = [
        *_references(catalogue),
        *(r for s in stories for r in cases.rows(rng, s)),
        *(ratings.row(rng, o) for o in said),
        *(r for k in kept for r in k.rows),
        *(r for k in resources for r in k.rows),
        *_others(rng, said, count // 40),
    ]
    wrong = [
        *faults.again(rng, good, 0.01),
        *faults.conflicts(rng, good, 0.002),
        *faults.malformed(rng, good, max(len(faults.SPOILERS), count // 40)),
    ]
    lively = _live(rng, stories, live)
    rows = sorted(
        [*good, *(r for r in wrong if r.received_at <= SPAN.end), *_year_over(catalogue)],
        key=lambda r: r.received_at,
    )
    closing = [_closing_story(catalogue[0], n) for n in range(CLOSING_CASES)]
    district = District(
        seed,
        SPAN,
        rows,
        [ratings.row(rng, o) for o in lively],
        faults.poison(rng, good, max(5, count // 100)),
        [*stories, *closing],
    )
    return Made(district, (*said, *lively), kept, resources)


def finished(story: Story) -> int | None:
    """When the case was decided, if it was."""
    return next((t.occurred_at for t in story.told if t.event in FINISHED), None)


def _stories(rng: random.Random, catalogue: Sequence[Item], count: int) -> list[Story]:
    by_region: dict[str, dict[str, list[Item]]] = {region: {} for region in REGIONS}
    for item in catalogue:
        by_region[item.region].setdefault(item.code, []).append(item)
    return [_one(rng, by_region, number) for number in range(count)]


def _one(rng: random.Random, by_region: dict[str, dict[str, list[Item]]], number: int) -> Story:
    choices = by_region[records.draw_region(rng)]
    policy = [code for code, versions in choices.items() if versions[0].rule]
    code = rng.choice(policy) if rng.random() < 0.2 else rng.choice(list(choices))
    submitted = cases.submission(rng, FIRST, date(2020, 12, 20))
    case_no = f"{code}{clock.day_of(submitted):%Y%m%d}{number:05d}"
    return cases.story(rng, case_no, tuple(choices[code]), submitted, SPAN)


def _references(catalogue: Sequence[Item]) -> list[Row]:
    """Calendars as they were known in time, and all items, before the first case."""
    from connectors.intake.calendar import calendar_row  # here: who only judges needs nothing of ours

    known = [calendar_row(y, occurred_at=KNOWN_BEFORE, department=EVERY_PUBLISHER) for y in YEARS]
    for row in known:
        if row["year"] == FIRST.year:
            row["days"] = _before_the_revision(row["days"])
    later = calendar_row(FIRST.year, occurred_at=REVISION_HEARD, department=EVERY_PUBLISHER, revision=2)
    calendar = [Row(CALENDAR, HESHAN, EVERY_PUBLISHER, KNOWN_BEFORE, r) for r in known]
    revised = Row(CALENDAR, HESHAN, EVERY_PUBLISHER, REVISION_HEARD, later)
    return [*calendar, revised, *items.rows(catalogue, KNOWN_BEFORE + 60_000)]


def _before_the_revision(days: list[dict[str, object]]) -> list[dict[str, object]]:
    """2020 as announced in November 2019: 31 January and Saturday 1 February are worked."""
    kept = [d for d in days if d["day"] not in clock.WORKED_BEFORE_THE_REVISION]
    return [*kept, {"day": date(2020, 2, 1), "working": True, "name": "Spring Festival"}]


def _licences(rng: random.Random, stories: Sequence[Story], stock: int) -> list[Licence]:
    bodies = items.departments()
    granted = [s for s in stories if any(t.event == "case.certified" for t in s.told)][::2]
    old = [
        records.licence(
            rng,
            n,
            rng.choice(bodies),
            records.draw_region(rng),
            SPAN.start - rng.randint(30, 2_000) * 86_400_000,
            SPAN,
        )
        for n in range(stock)
    ]
    new = [
        records.licence(
            rng,
            stock + n,
            s.item.department,
            s.item.region,
            finished(s) or SPAN.start,
            SPAN,
            s.case_no,
            s.item.code,
        )
        for n, s in enumerate(granted)
    ]
    return old + new


def _resources(rng: random.Random) -> list[Resource]:
    bodies = items.departments()
    return [records.resource(rng, n, bodies[n % len(bodies)], HESHAN if n % 4 else "430902", SPAN) for n in range(60)]


def _others(rng: random.Random, said: Sequence[Opinion], count: int) -> list[Row]:
    """Handling of bad ratings, inspections, hotline tickets."""
    rows: list[Row] = []
    for opinion in said:
        if opinion.score <= 2 and opinion.assess_no == 1 and opinion.revision == 0:
            rows += records.handling(ratings.alert_id(opinion), opinion.story, opinion.received_at, SPAN.end)
    for number in range(count):
        at = clock.at(date(2020, 3, 2), 600) + number * 86_400_000 % (SPAN.end - SPAN.start - 90 * 86_400_000)
        rows.append(records.behaviour(rng, number, rng.choice(items.departments()), at))
        rows += records.ticket(number, records.draw_region(rng), at)
    return rows


def _closing_story(item: Item, number: int) -> Story:
    told = Told("case.submitted", SPAN.end - 60_000, SPAN.end)
    return Story(f"{item.code}{LAST:%Y%m%d}9{number:04d}", item, (item,), (told,))


def _year_over(catalogue: Sequence[Item]) -> list[Row]:
    """The last submissions of the year: they carry the simulated time to its end in every partition."""
    rng = random.Random(0)
    return [r for n in range(CLOSING_CASES) for r in cases.rows(rng, _closing_story(catalogue[0], n))]


def _live(rng: random.Random, stories: Sequence[Story], count: int) -> list[Opinion]:
    done = [s for s in stories if finished(s)]
    return [
        ratings.live(rng, rng.choice(done), 2 + n, SPAN.end + n * LIVE_EVERY_MS) for n in range(count if done else 0)
    ]
