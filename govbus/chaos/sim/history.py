"""What happened in the district, small: what departments publish and what reaches the log past the publisher.

A history is made from a seed with the makers of ``govbus.district``; the last thing the bus hears of is at ``END``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, cached_property

from connectors.intake.calendar import calendar_row
from govbus.district import cases, clock, faults, items, ratings, records
from govbus.district.generator import EVERY_PUBLISHER, KNOWN_BEFORE, REVISION_HEARD, SPAN
from govbus.district.model import HESHAN, Item, Poison, Row, Story
from govbus.district.publishing import Raw, raws, whole
from govbus.district.ratings import Opinion
from schemas.topics import CALENDAR, CASE, RATING, Topic

DAY_MS = 86_400_000
END = SPAN.end
REFERENCE_YEARS = (2019, 2020, 2021)


@dataclass(frozen=True, slots=True)
class Stray:
    """A record that reaches the log past the publisher; ``after``: the record that must be in the log before it."""

    raw: Raw
    after: Raw | None = None


@dataclass(frozen=True)
class History:
    """``rows`` in the order in which the bus hears of them, and ``strays``."""

    number: int
    rows: tuple[Row, ...]
    strays: tuple[Stray, ...]

    @property
    def topics(self) -> frozenset[Topic]:
        """The inbound topics that carry something."""
        return frozenset(r.topic for r in self.rows) | frozenset(s.raw.topic for s in self.strays)

    @cached_property
    def accepted(self) -> dict[tuple[str, str], Row]:
        """By (topic, event id): what the publisher must take, once each."""
        return {(r.topic.name, str(whole(r)["event_id"])): r for r in self.rows if r.outcome == "new"}


@cache
def small(number: int) -> History:
    """Four to fifteen events: a case or two and what goes with them on some of the other topics."""
    rng = random.Random(number)
    told = stories(rng, rng.choice((1, 1, 1, 1, 2)))
    parts = dict.fromkeys(rng.choices(PARTS, k=rng.choice((1, 2))))
    cut = [replace(s, told=s.told[: rng.randint(1, 4)]) for s in told]
    rows = [
        *_few(rng, references(rng, told)),
        *(late(rng, row) for s in cut for row in cases.rows(rng, s)),
        *(row for part in parts for row in part(rng, told)[: rng.randint(1, MOST.get(part, 3))]),
    ]
    if rng.random() < 0.2:
        rows += records.ticket(number, HESHAN, END - 44 * 3_600_000 - 1_000)[-rng.randint(1, 3) :]
    if rng.random() < 0.1:
        rows.append(records.behaviour(rng, number, "HS-YJJ", SPAN.start))
    rows = _until_the_end(number, [*rows, *_troubles(rng, rows)])
    return History(number, tuple(rows), tuple(strays(rng, rows)))


def _until_the_end(number: int, rows: Sequence[Row]) -> list[Row]:
    """In the order of hearing; the last one is accepted at ``END``, so that nobody waits for a clock to go on."""
    *before, last = sorted(rows, key=lambda r: r.received_at)
    if last.outcome == "new":
        return [*before, replace(last, received_at=END)]
    return [*before, last, *records.ticket(number, HESHAN, END - 44 * 3_600_000 - 1_000)[-1:]]


def stories(rng: random.Random, count: int) -> list[Story]:
    """``count`` cases with much to tell: of thirty that might be, some of the longest ten."""
    versions: dict[str, list[Item]] = defaultdict(list)
    for item in items.build(random.Random(1), 3):
        if item.region == HESHAN:
            versions[item.code].append(item)
    codes = list(versions)
    told = []
    for number in range(30):
        code = rng.choice(codes)
        submitted = cases.submission(rng, date(2020, 1, 2), date(2020, 12, 1))
        told.append(cases.story(rng, f"{code}2020{number:05d}", tuple(versions[code]), submitted, SPAN))
    return rng.sample(sorted(told, key=lambda s: -len(s.told))[:10], count)


def late(rng: random.Random, row: Row) -> Row:
    """A quarter of the rows comes up to ten days late, so also out of order."""
    delay = rng.choice((0, 0, 0, rng.randrange(10 * DAY_MS)))
    return replace(row, received_at=min(row.received_at + delay, END))


def references(rng: random.Random, told: Sequence[Story]) -> list[Row]:
    """Calendars with a revision and one of the district's own, and every version of the items.

    The district's own comes on one of few days, for to build a calendar takes 20 ms, and built ones are kept.
    """
    known = [
        calendar_row(y, occurred_at=KNOWN_BEFORE, department=EVERY_PUBLISHER)
        for y in REFERENCE_YEARS[: rng.choice((2, 3))]
    ]
    known[1]["days"] = [d for d in known[1]["days"] if d["day"] not in clock.WORKED_BEFORE_THE_REVISION]
    revised = calendar_row(2020, occurred_at=REVISION_HEARD, department=EVERY_PUBLISHER, revision=2)
    own_at = SPAN.start + rng.randrange(5) * 40 * DAY_MS + DAY_MS // 2
    own = calendar_row(2020, occurred_at=own_at, department=EVERY_PUBLISHER, region=HESHAN)
    own["days"] = [*own["days"], {"day": date(2020, 6, 3), "working": False, "name": "防汛"}]
    rows = [Row(CALENDAR, HESHAN, EVERY_PUBLISHER, KNOWN_BEFORE, r) for r in known]
    rows += [Row(CALENDAR, HESHAN, EVERY_PUBLISHER, at, r) for at, r in ((REVISION_HEARD, revised), (own_at, own))]
    versions = {(v.code, v.version): v for s in told for v in s.versions}
    return rows + list(items.rows(versions.values(), KNOWN_BEFORE + 60_000))


def opinions(rng: random.Random, story: Story) -> list[Opinion]:
    """One visit corrected or withdrawn and rated again, another whose default gives way to a real rating."""
    at = END - rng.randrange(20, 200) * DAY_MS
    channel = rng.randrange(len(ratings.CHANNELS))
    first = Opinion(story, 1, 0, "I", rng.choice((1, 2, 5)), channel, at, at + 30_000)
    amended = replace(first, revision=1, operation=rng.choice("UD"), score=rng.choice((1, 4)), received_at=at + DAY_MS)
    again = replace(first, assess_no=2, score=4, occurred_at=at + 9 * DAY_MS, received_at=at + 9 * DAY_MS + 1)
    default = replace(first, service_no=2, score=5, is_default=True)
    real = replace(default, revision=1, score=2, is_default=False, occurred_at=at + DAY_MS, received_at=at + DAY_MS + 5)
    return [first, *rng.sample((amended, again, default, real), rng.randint(1, 4))]


def opinion_rows(rng: random.Random, told: Sequence[Story]) -> list[Row]:
    """What is thought of the first two cases, some of it late."""
    return [late(rng, ratings.row(rng, o)) for s in told[:2] for o in opinions(rng, s)]


def licences(rng: random.Random, _told: Sequence[Story]) -> list[Row]:
    """A stock licence and one of a case, the likelier the more happens to them."""
    made = [records.licence(rng, n, "HS-SCJGJ", HESHAN, SPAN.start, SPAN, "C" * (n % 2)) for n in range(20)]
    kept = sorted(made, key=lambda k: -len(k.rows))[rng.randrange(3) :][:2]
    return [row for k in kept for row in k.rows]


def resource(rng: random.Random, _told: Sequence[Story]) -> list[Row]:
    """A registered resource and some of what becomes of it."""
    told = records.resource(rng, rng.randrange(900), "HS-SLJ", HESHAN, SPAN).rows
    return [told[0], *rng.sample(told[1:], min(5, len(told) - 1))]


def handling(rng: random.Random, told: Sequence[Story]) -> list[Row]:
    """A bad rating of a visit of its own, and what is done about it: the loop, or an appeal and how it ends."""
    story, at = told[0], END - rng.randrange(3, 200) * DAY_MS
    bad = Opinion(story, 1, 0, "I", rng.choice((1, 2)), 0, at, at + 30_000, service_no=3)
    about = ratings.alert_id(bad), story, bad.received_at
    acts = records.handling(*about, END)
    if rng.random() < 0.7:
        acts = [*acts[:3], *records.appeal(*about, rng.choice((*records.DECISIONS, "revoked")))]
    return [row if row.topic is RATING else late(rng, row) for row in (ratings.row(rng, bad), *acts)]


Part = Callable[[random.Random, Sequence[Story]], list[Row]]
PARTS: Sequence[Part] = (opinion_rows, opinion_rows, licences, resource, handling, handling)
"""What goes with cases; those twice that reach the farthest."""
MOST: Mapping[Part, int] = {handling: 7}
"""So many rows of a part, of others three."""


def strays(rng: random.Random, rows: Sequence[Row]) -> list[Stray]:
    """Damaged records, a good one carried again, and one event told again with other content."""
    good = [r for r in rows if r.outcome == "new"]
    harmed = [r for r in good if r.topic in (CASE, RATING)]
    damaged = [Poison(kind, rng.choice(harmed)) for kind in rng.sample(faults.POISONS, rng.randint(0, 2))]
    found = [Stray(raw) for raw in raws(damaged)]
    again = rng.sample(good, rng.randint(0, 2))
    found += [_after(row, row) for row in again]
    if rng.random() < 0.4:
        told = rng.choice([r for r in good if r.topic is CASE])
        found.append(_after(told, replace(told, record={**told.record, "accepting_unit": "另一处窗口"})))
    return found


def _after(original: Row, row: Row) -> Stray:
    after, raw = raws([Poison("duplicate", original), Poison("duplicate", row)])
    return Stray(raw, after)


def _few(rng: random.Random, rows: list[Row]) -> Iterable[Row]:
    """A calendar may come late or never: then the cases wait or stay provisional."""
    calendars = [r for r in rows if r.topic is CALENDAR]
    kept = rng.sample(calendars, rng.choice((0, 1, 2, 2, 3)))
    return [r for r in rows if r.topic is not CALENDAR or r in kept]


def _troubles(rng: random.Random, rows: Sequence[Row]) -> list[Row]:
    """Rows sent again, with other content, and with faults."""
    found = faults.again(rng, list(rows), 0.08) if rng.random() < 0.7 else []
    if rng.random() < 0.4:
        found += faults.conflicts(rng, list(rows), 0.02)[:1]
    if rng.random() < 0.4:
        found += _refused(rng, rows)
    return [replace(r, received_at=min(r.received_at, END)) for r in found]


def _refused(rng: random.Random, rows: Sequence[Row]) -> list[Row]:
    good = faults.harmless(rows)
    spoilers = [s for s in faults.SPOILERS if good[s[0]]]
    if not spoilers:
        return []
    topic, reason, spoil = rng.choice(spoilers)
    row = faults.fresh(rng, good, topic, f"BAD{rng.randrange(10**6):06d}")
    return [replace(row, record=spoil(dict(row.record)), outcome="refused", reason=reason)]
