"""Makes a large load out of a small simulated district: every event again for many keys, in the order in which the
bus hears of things.

A clone differs from its template in the number within its key, and so in its event id; both are as long as before,
so they are exchanged in the encoded record. That is quick, and every path of the simulated life is in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from bench.load import Message
from govbus.district import cases, clock, generator, items, records
from govbus.district.model import Row
from govbus.district.publishing import whole
from schemas import codec, envelope
from schemas.envelope import Headers
from schemas.topics import CALENDAR, CASE, ITEM, Topic

SEED = 430_903
LONG = 10
"""Working days that a case may take at least, to be surely open for a week."""
WEEK_MS = clock.at(date(2020, 9, 7), 0)
MINUTES_MS = 5 * 60_000
OPENING = ["case.submitted", "case.accepted"]
DIGITS = 5
"""Digits of a key's number that clones exchange: up to 100,000 clones of one template."""


@dataclass(frozen=True, slots=True)
class Template:
    """One event of one key, encoded; ``number`` is what clones exchange."""

    topic: Topic
    key: str
    number: str
    record: dict[str, Any]
    value: bytes
    headers: Headers

    @classmethod
    def of(cls, row: Row, number: Callable[[str], str]) -> Template:
        """From a row as a department publishes it."""
        record = dict(whole(row))
        key = str(record[row.topic.key])
        value, headers = codec.encode(row.topic, record), envelope.headers(row.topic, record)
        return cls(row.topic, key, number(key), record, value, headers)

    def clone(self, copy: int) -> Message:
        """Key, value and headers of the ``copy``-th clone."""
        old, new = self.number, self.number[:-DIGITS] + f"{copy:0{DIGITS}d}"
        identity = {n: self.record[n] for n in ("region", "department", *self.topic.identity)}
        changed = {n: v.replace(old, new) if isinstance(v, str) else v for n, v in identity.items()}
        before, after = str(self.record["event_id"]), str(envelope.event_id(self.topic, changed))
        value = self.value.replace(old.encode(), new.encode()).replace(before.encode(), after.encode())
        key = self.key.replace(old, new).encode()
        exchanged = {"ce_id": after.encode(), "ce_subject": key}
        return key, value, [(name, exchanged.get(name, text)) for name, text in self.headers]


def references() -> list[Row]:
    """Calendars and items of the simulated district, before its first event."""
    rows = generator.make(SEED, 200, 0).district.rows
    return [row for row in rows if row.topic in (ITEM, CALENDAR) and row.outcome == "new"]


def case_templates(stories: int = 200) -> list[Template]:
    """The events of some simulated cases, in the order in which the bus hears of them."""
    rows = [r for r in generator.make(SEED, stories, 0).district.rows if r.topic is CASE and r.outcome == "new"]
    kept = _one_a_prefix(rows)
    return [Template.of(row, lambda key: key) for row in kept]


def open_case_templates(stories: int = 200, weeks_before: int = 0) -> list[Template]:
    """Submission and acceptance, and nothing after them, of some cases: two events each, and an open clock.

    All are accepted in one week (``WEEK_MS``, or some before it) and have ten working days or more, so none is due
    before the last is accepted.
    """
    rows = generator.make(SEED, 16 * stories, 0).district.rows
    long = {r.record["item_code"] for r in rows if r.topic is ITEM and r.record.get("promise_limit", 0) >= LONG}
    lives: dict[str, list[Row]] = {}
    for row in _one_a_prefix([r for r in rows if r.topic is CASE and r.outcome == "new"]):
        lives.setdefault(row.record["case_no"], []).append(row)
    plain = [life[:2] for life in lives.values() if _opens(life[:2]) and life[0].record["item_code"] in long]
    moved = [row for life in plain[:stories] for row in _moved(life, WEEK_MS - 7 * cases.DAY_MS * weeks_before)]
    return [Template.of(row, lambda key: key) for row in sorted(moved, key=lambda r: r.received_at)]


def _opens(life: Sequence[Row]) -> bool:
    """Whether it is submitted and accepted, both told in numbers and at once."""
    at = [r.record["occurred_at"] for r in life]
    return [r.record["event_type"] for r in life] == OPENING and all(
        isinstance(t, int) and r.received_at - t < MINUTES_MS for t, r in zip(at, life, strict=True)
    )


def _moved(life: Sequence[Row], week: int) -> list[Row]:
    """The same by whole weeks later or earlier, accepted in the week that begins at ``week`` (epoch ms)."""
    by = (week - life[-1].received_at) // (7 * cases.DAY_MS) * 7 * cases.DAY_MS + 7 * cases.DAY_MS
    return [
        replace(r, received_at=r.received_at + by, record={**r.record, "occurred_at": r.record["occurred_at"] + by})
        for r in life
    ]


def stock_templates(number: int = 200) -> list[Template]:
    """Stock licences as they are backfilled, one event each."""
    rng = random.Random(SEED)
    span, bodies = generator.SPAN, items.departments()
    made: list[Template] = []
    for n in range(number):
        issued = span.start - rng.randint(30, 2_000) * cases.DAY_MS
        body, region = rng.choice(bodies), records.draw_region(rng)
        licence = records.licence(rng, n * 10**DIGITS, body, region, issued, span)
        made.append(Template.of(licence.rows[0], lambda family: family.rsplit("/", 1)[1]))
    return made


def _one_a_prefix(rows: Sequence[Row]) -> list[Row]:
    """Rows of cases whose numbers, without the exchanged digits, are unique."""
    taken: dict[str, str] = {}
    for row in rows:
        taken.setdefault(row.record["case_no"][:-DIGITS], row.record["case_no"])
    return [r for r in rows if taken[r.record["case_no"][:-DIGITS]] == r.record["case_no"]]


def messages(templates: Sequence[Template], count: int) -> Iterator[Message]:
    """At least ``count`` messages: the templates in order, each for all copies before the next; whole copies only."""
    for template in templates:
        for copy in range(copies(templates, count)):
            yield template.clone(copy)


def copies(templates: Sequence[Template], count: int) -> int:
    """How many copies make at least ``count`` messages."""
    return -(-count // len(templates))
