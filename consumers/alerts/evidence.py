"""What an alert rests on: the events and alerts that its evidence names, found where the district keeps them.

Decides where to look: the outbox has every event as it was published; the tables of the processors have those too that
reached Kafka another way, some without all of their content. Masks nothing: what is found is for who does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from consumers.alerts.inbox import ACTIONS
from schemas import codec
from schemas.topics import ALERT, BY_NAME, CASE, HANDLING, INBOUND, ITEM, RATING, Topic
from streams.store import outbox, tables

APPLIED: Mapping[Topic, sa.Table] = {
    CASE: tables.case_event, RATING: tables.rating_event, ITEM: tables.item_event, HANDLING: tables.handling_event,
}  # fmt: skip
SAID = {action: event_type for event_type, action in ACTIONS.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of evidence. ``record``: the fields of its contract that are kept, the envelope's at least; an alert's
    as its last word has it. ``receipt``: as its publisher got it; an alert has none.
    """

    id: str
    topic: Topic
    record: Mapping[str, Any]
    receipt: str = ""


def find(tx: sa.Connection, case_no: str, evidence: Sequence[str]) -> tuple[list[Piece], list[str]]:
    """What the ``evidence`` of an alert about ``case_no`` names, in the order in which it happened, and the ids that
    are nowhere.
    """
    found: dict[str, Piece] = {}
    for look in (_published, _applied, _alerts):
        if left := [one for one in evidence if one not in found]:
            found |= {piece.id: piece for piece in look(tx, case_no, _ids(left))}
    happened = sorted(found.values(), key=lambda piece: (piece.record["occurred_at"], piece.id))
    return happened, [one for one in evidence if one not in found]


def _ids(texts: Iterable[str]) -> list[UUID]:
    """Those of ``texts`` that are ids at all."""
    ids = []
    for text in texts:
        with suppress(ValueError):
            ids.append(UUID(text))
    return ids


def _published(tx: sa.Connection, _: str, ids: Sequence[UUID]) -> Iterator[Piece]:
    kept = tables.outbox.c
    query = sa.select(kept.event_id, kept.topic, kept.value, kept.digest)
    for row in tx.execute(query.where(kept.topic.in_([t.name for t in INBOUND]), kept.event_id.in_(ids))):
        topic = BY_NAME[row.topic]
        record = codec.decode(bytes(row.value), topic)
        yield Piece(str(row.event_id), topic, record, outbox.receipt(row.event_id, row.digest))


def _applied(tx: sa.Connection, case_no: str, ids: Sequence[UUID]) -> Iterator[Piece]:
    for topic, table in APPLIED.items():
        query = sa.select(table).where(table.c.event_id.in_(ids))
        if topic is RATING:  # a rating's id alone is in no index
            query = query.where(table.c.case_no == case_no)
        for row in tx.execute(query):
            columns = dict(row._mapping)
            record = {**columns.pop("body", {}), **columns}
            yield Piece(str(row.event_id), topic, record, outbox.receipt(row.event_id, row.digest))


def _alerts(tx: sa.Connection, _: str, ids: Sequence[UUID]) -> Iterator[Piece]:
    inbox = tables.alert_inbox
    for row in tx.execute(sa.select(inbox).where(inbox.c.alert_id.in_(ids))):
        record = {
            **row._mapping, "event_type": SAID[row.action], "occurred_at": row.issued_at, "received_at": row.known_at,
            "kind_code": row.kind, "colour_code": row.colour,
        }  # fmt: skip
        yield Piece(str(row.alert_id), ALERT, record)
