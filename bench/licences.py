"""``govbus bench licences``: the backfill of a stock of licences (10 M is the full size), beside Kafka Streams with
exactly_once_v2, which only counts the same records.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bench import clones, limits, load, ours
from bench.contest import Contest
from bench.given import Given
from bench.measure import Figures, report
from bench.ours import Work
from bench.peers import table
from bench.peers.protocol import Task
from bench.stand import Stand, stand
from schemas.errors import GovbusError
from schemas.topics import LICENCE
from streams.store.engine import connect
from streams.store.tables import licence_event

FIELDS = ("department", "type_code", "status_code", "event_type")
LIMIT_EVENTS = 100_000


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds over about ``given.events`` licences, one event each."""
    templates = clones.stock_templates()
    count = clones.copies(templates, given.events) * len(templates)
    with stand() as place:
        for done in load.pour(place.kafka, LICENCE, clones.messages(templates, given.events)):
            given.tell("fill Kafka", done, count)
        contest = Contest(
            place,
            given,
            Task(LICENCE, FIELDS, count),
            table.named(table.EXACTLY_ONCE),
            lambda number: (*_ours(place, given, count, number), None),
            lambda: limits.measure(place.kafka, LICENCE, min(count, LIMIT_EVENTS)),
        )
        return report("licences", contest.rounds(), events=count, workers=1)


def verify(engine: sa.Engine, count: int) -> None:
    """Raise unless every licence is in SQL once, with its event."""
    events = ours.ask(engine, "SELECT count(*) FROM licence_event")
    licences = ours.ask(engine, "SELECT count(*) FROM licence")
    if not events == licences == count:
        raise GovbusError(f"{count} licences gave {events} events and {licences} licences")


def _ours(place: Stand, given: Given, count: int, number: int) -> tuple[Figures, Figures]:
    work = Work((LICENCE,), count, lambda engine: verify(engine, count))
    with place.database() as url, place.directory(f"ours-{number}") as home:
        found = ours.measure(place, url, work, home, lambda n: given.tell("ours", n, count))
        engine = connect(url)
        copied = limits.copy(engine, licence_event, min(count, LIMIT_EVENTS))
        engine.dispose()
    return found, copied
