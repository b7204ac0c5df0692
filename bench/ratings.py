"""``govbus bench ratings``: Avro ratings in Kafka to deduplicated, rolled-up SQL, beside the peers and the limits.

Decides what is measured and what is demanded; every round measures all of it one after another on the same records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import sqlalchemy as sa

from bench import counts, limits, load, ours
from bench.contest import Contest
from bench.given import Given
from bench.measure import Figures, Target, report
from bench.ours import Work
from bench.peers import table
from bench.peers.protocol import Task
from bench.stand import Stand, stand
from schemas.errors import GovbusError
from schemas.topics import ALERT, RATING
from streams.store.engine import connect
from streams.store.tables import outbox, rating_event

LIMIT_EVENTS = 300_000
UNMERGED = "SELECT EXISTS (SELECT FROM rating_cell_change) OR EXISTS (SELECT FROM rollup_dirty)"
"""Rollup changes are appended first; ``rate_settled`` ends when they are merged and the rollups said."""
TARGETS = (
    Target("ours >= 2.5 x Kafka Streams exactly_once_v2", least=2.5, peer=table.EXACTLY_ONCE),
    Target("ours >= 40 x stock Faust with a table", least=40, peer=table.FAUST),
    Target("ours >= 40 % of COPY with a primary key", least=0.4, limit="copy_with_primary_key"),
)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds over ``given.events`` ratings.

    ``rate`` is without single ratings for the province; ``rate_with_uploads`` (first round only) with them, an
    outbox row each.
    """
    with stand() as place:
        fill(place, given)
        task = Task(RATING, counts.RATING_FIELDS, given.events)
        contest = Contest(
            place,
            given,
            task,
            table.PEERS,
            lambda number: _ours(place, given, number),
            lambda: limits.measure(place.kafka, RATING, min(given.events, LIMIT_EVENTS)),
        )
        return report("ratings", contest.rounds(), TARGETS, events=given.events, workers=1)


def fill(place: Stand, given: Given) -> None:
    """Put the ratings into Kafka."""
    for done in load.fill(place.kafka, RATING, given.events):
        given.tell("fill Kafka", done, given.events)


def work(count: int, *arguments: str, settle: bool = False) -> Work:
    """All ratings once each in SQL; ``settle``: wait until all rollups are merged and said."""
    return Work((RATING,), count, lambda engine: verify(engine, count), UNMERGED if settle else "", arguments, _said)


def verify(engine: sa.Engine, count: int) -> None:
    """Raise unless SQL holds ``count`` ratings and cells that sum up to them."""
    events = ours.ask(engine, "SELECT count(*) FROM rating_event")
    counted = ours.ask(engine, "SELECT sum(n) FROM rating_cell")
    if not events == counted == count:
        raise GovbusError(f"{count} ratings gave {events} events and cells that sum up to {counted}")


def _ours(place: Stand, given: Given, number: int) -> tuple[Figures, Figures, pl.DataFrame]:
    with place.database() as url, place.directory(f"ours-{number}") as home:
        task = work(given.events, "--without-uploads", settle=number == 0)
        found = ours.measure(place, url, task, home, _teller(given, "ours"))
        engine = connect(url)
        found["cells"] = float(ours.ask(engine, "SELECT count(*) FROM rating_cell"))
        copied = limits.copy(engine, rating_event, min(given.events, LIMIT_EVENTS))
        cells = counts.of_sql(engine)
        engine.dispose()
    return (found | _with_uploads(place, given) if number == 0 else found), copied, cells


def _with_uploads(place: Stand, given: Given) -> dict[str, float]:
    """Once, for it is long: every rating is also said to the province."""
    with place.database() as url, place.directory("uploads") as home:
        found = ours.measure(place, url, work(given.events), home, _teller(given, "ours, with uploads"))
    return {f"{name}_with_uploads": value for name, value in found.items()}


def _teller(given: Given, step: str) -> Callable[[int], None]:
    return lambda done: given.tell(step, done, given.events)


def _said(engine: sa.Engine) -> dict[str, float]:
    """How much was said so far: all, and bad ratings."""
    with engine.connect() as tx:
        said = tx.execute(sa.select(sa.func.count(), sa.func.count().filter(outbox.c.topic == ALERT.name))).one()
    return {"outbox": float(said[0]), "alerts": float(said[1])}
