"""Finds dead letters, gives them another chance or closes them. Decides whether one can go again, never mends content.

A row that the intake refused is validated anew and published; a record that a stream refused goes to its
topic again if it decodes now. Whatever is accepted is marked ``redriven_at``; twice changes nothing. A
stream that refuses it once more makes another dead letter of it (``streams.store.steps.bury``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from connectors.intake.files import Row, Unreadable, json_row
from connectors.publisher import Publisher
from connectors.refusals import ORIGIN as INTAKE
from schemas import codec
from schemas.clock import wall_clock
from schemas.errors import Fault, Rejected
from schemas.topics import BY_NAME
from streams.store import outbox, quarantine
from streams.store.projection import Carried
from streams.store.tables import dead_letter
from streams.store.tables import outbox as outbox_table

ACCEPTED = frozenset({"new", "same", "sent again"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; empty fields ask for nothing. ``redriven``: also those that are closed."""

    ids: tuple[uuid.UUID, ...] = ()
    reason: str = ""
    topic: str = ""
    department: str = ""
    origin: str = ""
    redriven: bool = False

    @property
    def chosen(self) -> bool:
        """True if it names something, rather than everything there is."""
        return bool(self.ids or self.reason or self.topic or self.department or self.origin)


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of one dead letter: ``conflict``, ``refused``, or one of ``ACCEPTED``."""

    dead_id: uuid.UUID
    outcome: str
    event_id: uuid.UUID | None = None
    faults: tuple[Fault, ...] = ()


def counts(engine: sa.Engine, wanted: Wanted) -> list[Any]:
    """Rows of (reason, topic, department, origin, n), the most frequent first."""
    c = dead_letter.c
    groups = (c.reason, c.topic, c.department, c.origin)
    number = sa.func.count().label("n")
    query = (
        sa.select(*groups, number)
        .where(*_conditions(wanted))
        .group_by(*groups)
        .order_by(number.desc(), *groups)
    )
    with engine.connect() as connection:
        return list(connection.execute(query))


def find(engine: sa.Engine, wanted: Wanted, limit: int | None = None) -> list[Any]:
    """The rows of ``dead_letter``, the latest events first."""
    order = (dead_letter.c.occurred_at.desc(), dead_letter.c.dead_id)
    with engine.connect() as connection:
        return list(
            connection.execute(
                sa.select(dead_letter).where(*_conditions(wanted)).order_by(*order).limit(limit)
            )
        )


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    c = dead_letter.c
    asked: Sequence[tuple[object, sa.ColumnElement[bool]]] = (
        (wanted.ids, c.dead_id.in_(wanted.ids)),
        (wanted.reason, c.reason == wanted.reason),
        (wanted.topic, c.topic == wanted.topic),
        (wanted.department, c.department == wanted.department),
        (wanted.origin, c.origin == wanted.origin),
        (not wanted.redriven, c.redriven_at.is_(None)),
    )
    return [condition for value, condition in asked if value]


def close(engine: sa.Engine, wanted: Wanted, why: str, now: Callable[[], int] = wall_clock) -> int:
    """Close the open ones of ``wanted`` without sending anything, for the reason ``why``; how many they were."""
    closed = sa.update(dead_letter).where(*_conditions(replace(wanted, redriven=False)))
    with engine.begin() as tx:
        return tx.execute(closed.values(redriven_at=now(), closed_why=why)).rowcount


def redrive(engine: sa.Engine, dead: Any, now: Callable[[], int] = wall_clock) -> Redriven:
    """Give the row ``dead`` of ``dead_letter`` another chance; the result says what came of it."""
    if dead.origin == INTAKE:
        return replace_with(engine, dead, [_row(dead.original)], now)[0]
    return _send_record(engine, dead, now)


def replace_with(
    engine: sa.Engine, dead: Any, rows: Sequence[Row], now: Callable[[], int] = wall_clock
) -> list[Redriven]:
    """Publish corrected ``rows`` in the place of ``dead``, which is marked if all of them are accepted."""
    results = _published(engine, dead, rows, now)
    if results and all(r.outcome in ACCEPTED for r in results):
        with engine.begin() as tx:
            _mark(tx, dead.dead_id, now())
    return results


def _published(engine: sa.Engine, dead: Any, rows: Sequence[Row], now: Callable[[], int]) -> list[Redriven]:
    try:
        publisher = Publisher(engine, dead.department, dead.region, now)
    except Rejected as error:
        return [Redriven(dead.dead_id, "refused", dead.event_id, error.faults)]
    results = publisher.publish(BY_NAME[dead.topic], rows)
    return [Redriven(dead.dead_id, r.outcome, r.event_id, r.faults) for r in results]


def _row(original: bytes) -> Row:
    """Read as it was the first time: what was no row then is none now."""
    try:
        row = json_row(original.decode())
    except UnicodeDecodeError:
        row = Unreadable(Fault("bad_row", "", "is not text in UTF-8", ""), original)
    if isinstance(row, Unreadable):
        return Unreadable(replace(row.fault, mend="redrive it with a corrected file"), original)
    return row


def _send_record(engine: sa.Engine, dead: Any, now: Callable[[], int]) -> Redriven:
    """The record as it was carried, through the outbox; one that is there already is sent once more.

    Marked in the same transaction: it may be refused again before a second one could mark it.
    """
    topic = BY_NAME[dead.topic]
    if dead.reason == quarantine.KILLS and _still_kills(dead):
        fault = Fault(quarantine.KILLS, "", "decoding it still ends the process", "mend the decoder first")
        return Redriven(dead.dead_id, "refused", dead.event_id, (fault,))
    try:
        record = codec.decode(bytes(dead.original), topic)
        ready = outbox.row(topic, record)
        if str(ready.event_id) != record["event_id"]:
            raise Rejected(Fault("id_mismatch", "event_id", "is not the id derived from the event"))
    except Rejected as error:
        return Redriven(dead.dead_id, "refused", dead.event_id, error.faults)
    with engine.begin() as tx:
        answer = outbox.enqueue(tx, [ready])[0]
        if answer.outcome == "conflict":
            conflict = Fault("conflict", "", "the event was published with other content")
            return Redriven(dead.dead_id, "conflict", ready.event_id, (conflict,))
        _mark(tx, dead.dead_id, now())
        if answer.outcome == "same":
            _unsend(tx, topic.name, ready.event_id)
    return Redriven(dead.dead_id, "sent again" if answer.outcome == "same" else "new", ready.event_id)


def _still_kills(dead: Any) -> bool:
    """Whether a child that decodes it dies."""
    headers = tuple((name, value.encode()) for name, value in dead.headers)
    place = (dead.partition or 0, dead.offset or 0)
    return bool(quarantine.culprits([Carried(BY_NAME[dead.topic], *place, dead.key, bytes(dead.original), headers)]))


def _unsend(tx: sa.Connection, topic: str, event_id: uuid.UUID) -> None:
    """Let the relay send an event of the outbox once more; readers know it by its id."""
    c = outbox_table.c
    nowhere = {"sent_at": None, "sent_partition": None, "sent_offset": None}
    tx.execute(sa.update(outbox_table).where(c.topic == topic, c.event_id == event_id).values(nowhere))
    tx.execute(outbox.WAKE)


def _mark(tx: sa.Connection, dead_id: uuid.UUID, at: int) -> None:
    tx.execute(sa.update(dead_letter).where(dead_letter.c.dead_id == dead_id).values(redriven_at=at))
