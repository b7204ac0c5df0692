"""``govbus bench replay``: everything that is in the log, read again into an empty database: references, ratings, cases
and licences at once, by one worker.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bench import cases, clones, licences, limits, load, ours, ratings
from bench.given import Given
from bench.measure import Round, report
from bench.ours import Work
from bench.stand import Stand, stand
from schemas.errors import GovbusError
from schemas.topics import CALENDAR, CASE, ITEM, LICENCE, RATING
from streams.store.engine import connect

SHARES = {RATING: 0.5, CASE: 0.4, LICENCE: 0.1}
STATES = ("rating_cell", "case_state", "card", "licence")
"""What must be the same after every replay, without where in the log it came from."""
_DIGEST = "SELECT coalesce(sum(('x' || substr(md5(({0})::text), 1, 12))::bit(48)::bigint), 0)::text FROM {1} AS t"


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` replays of about ``given.events`` events. Raises if two of them differ."""
    with stand() as place:
        counts = _fill(place, given)
        total = sum(counts.values())
        rounds: list[Round] = []
        states: set[tuple[str, ...]] = set()
        for number in range(given.rounds):
            rounds.append(_round(place, given, counts, states, number))
            if len(states) > 1:
                raise GovbusError("two replays of the same log gave two databases")
        return report("replay", rounds, events=total, workers=1)


def _fill(place: Stand, given: Given) -> dict[str, int]:
    """References and events; how many of each topic."""
    made = {
        ITEM.name: _references(place, ITEM),
        CALENDAR.name: _references(place, CALENDAR),
    }
    for topic, share in SHARES.items():
        count = int(given.events * share)
        for done in load.pour(place.kafka, topic, _load(topic, count)):
            given.tell(f"fill {topic.name}", done, count)
            made[topic.name] = done
    return made


def _references(place: Stand, topic: Any) -> int:
    rows = [clones.Template.of(row, lambda key: key) for row in clones.references() if row.topic is topic]
    return sum(load.pour(place.kafka, topic, [(t.key.encode(), t.value, t.headers) for t in rows]))


def _load(topic: Any, count: int) -> Any:
    if topic is RATING:
        return (m for section in load.ratings(count) for m in load.messages(RATING, section))
    templates = clones.case_templates() if topic is CASE else clones.stock_templates()
    return clones.messages(templates, count)


def _round(place: Stand, given: Given, counts: dict[str, int], states: set[tuple[str, ...]], number: int) -> Round:
    topics = (ITEM, CALENDAR, *SHARES)
    total = sum(counts.values())
    work = Work(topics, total, lambda engine: _verify(engine, counts), cases.UNSETTLED)
    with place.database() as url, place.directory(f"replay-{number}") as home:
        found = ours.measure(place, url, work, home, lambda n: given.tell("replay", n, total))
        engine = connect(url)
        states.add(tuple(_state(engine, table) for table in STATES))
        engine.dispose()
    given.tell("limits", 0, 1)
    return Round(found, limits=limits.measure(place.kafka, RATING, counts[RATING.name]))


def _verify(engine: sa.Engine, counts: dict[str, int]) -> None:
    ratings.verify(engine, counts[RATING.name])
    cases.verify(engine, counts[CASE.name])
    licences.verify(engine, counts[LICENCE.name])


def _state(engine: sa.Engine, table: str) -> str:
    """A sum over the rows' digests, so that their order does not count."""
    return str(ours.ask(engine, _DIGEST.format("to_jsonb(t) - 'partition' - 'offset'", table)))
