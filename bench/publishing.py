"""``govbus bench publishing``: rows of departments, validated and stored with a receipt (no gateway before it), then
carried to Kafka by the relay; beside a bare Kafka producer and COPY of the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import limits, load, ours
from bench.chain import Relay, relay
from bench.given import Given
from bench.measure import Round, report
from bench.stand import Stand, stand
from connectors.publisher import Publisher, publish_together
from schemas.errors import GovbusError
from schemas.topics import RATING
from streams.store.engine import connect
from streams.store.tables import outbox

TOGETHER = 1_000
LEFT_OUT = ("region", "department", "received_at")
"""What the publisher itself sets."""
UNSENT = "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL)"


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds over ``given.events`` ratings, 1,000 in a transaction.

    ``rate``: rows with their receipts, no relay beside; ``relay_rate``: from the outbox to Kafka, acknowledged and
    marked; ``carried_rate``: both at the same time, until the last row is marked.
    """
    with stand() as place:
        return report("publishing", [_round(place, given, n) for n in range(given.rounds)], events=given.events)


def _round(place: Stand, given: Given, number: int) -> Round:
    with place.database() as url, place.directory(f"publishing-{number}") as home, ExitStack() as stack:
        engine = connect(url)
        stack.callback(engine.dispose)
        figures = _published(engine, given)
        figures |= {"relay_rate": given.events / _relayed(place, url, engine, home)}
        copied = limits.copy(engine, outbox, given.events)
    with place.database() as url, place.directory(f"carried-{number}") as home:
        figures |= {"carried_rate": given.events / _carried(place, url, given, home)}
    produced = _produced(place, given)
    return Round(figures, limits={"produce": produced, **copied})


def _published(engine: sa.Engine, given: Given) -> dict[str, float]:
    """Rows a second, and our CPU for each."""
    seconds, before = 0.0, time.process_time()
    for done, batch in _batches(engine, given.events):
        began = time.monotonic()
        _accept(engine, batch)
        seconds += time.monotonic() - began
        given.tell("publish", done, given.events)
    cpu = time.process_time() - before  # making the rows included
    return {"rate": given.events / seconds, "publisher_cpu_us": cpu / given.events * 1e6}


def _relayed(place: Stand, url: str, engine: sa.Engine, home: Path) -> float:
    """Seconds from the relay's first mark until all is marked."""
    with ExitStack() as stack:
        child = relay(place, url, home, stack)
        return _until_sent(engine, child) - child.started_to_send(engine)


def _carried(place: Stand, url: str, given: Given, home: Path) -> float:
    """Seconds in which all rows were published and marked as sent, the relay running from before."""
    engine = connect(url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        child = relay(place, url, home, stack)
        child.wait_leading(engine)
        began = time.monotonic()
        for done, batch in _batches(engine, given.events):
            _accept(engine, batch)
            given.tell("publish beside the relay", done, given.events)
        return _until_sent(engine, child) - began


def _until_sent(engine: sa.Engine, child: Relay) -> float:
    while ours.ask(engine, UNSENT):
        child.must_live()
        time.sleep(0.02)
    return time.monotonic()


def _accept(engine: sa.Engine, batch: Sequence[Any]) -> None:
    if not all(result.outcome == "new" for result in publish_together(engine, batch)):
        raise GovbusError("the publisher did not take every row as new")


def _batches(engine: sa.Engine, count: int) -> Iterator[tuple[int, list[Any]]]:
    """Rows with their publishers, 1,000 at a time, and how many there were so far."""
    publishers: dict[str, Publisher] = {}
    done = 0
    for section in load.ratings(count):
        rows = section.to_dicts()
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            done += len(some)
            yield done, [(_publisher(engine, publishers, row), RATING, _bare(row)) for row in some]


def _publisher(engine: sa.Engine, known: dict[str, Publisher], row: Mapping[str, Any]) -> Publisher:
    name = row["department"]
    known[name] = known.get(name) or Publisher(engine, name, row["region"])
    return known[name]


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in LEFT_OUT}


def _produced(place: Stand, given: Given) -> float:
    """Rate of a bare idempotent producer with the same records, all acknowledged."""
    made = [m for section in load.ratings(given.events, seed=3) for m in load.messages(RATING, section)]
    began = time.monotonic()
    for done in load.pour(place.kafka, RATING, made):
        given.tell("produce", done, given.events)
    return given.events / (time.monotonic() - began)
