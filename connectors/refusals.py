"""Keeps what the intake refused: a dead letter with the row as it came, its reasons and its department.

Decides the id of such a dead letter: topic, department and the row's bytes, so that the same bad row sent
again is the same dead letter. It writes in the caller's transaction and never publishes the refused row
itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from schemas import bounds, envelope
from schemas.errors import Fault
from schemas.topics import DEADLETTER, Topic
from streams.store import bulk, outbox
from streams.store.tables import dead_letter

ORIGIN = "INTAKE"
SUMMED_UP = 20
"""Faults that a summary names: a row may have thousands, and its announcement must stay a record."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that the intake refuses; times are epoch ms UTC, ``event_id`` None where none could be derived."""

    topic: Topic
    region: str
    department: str
    original: bytes
    faults: tuple[Fault, ...]
    received_at: int
    event_id: uuid.UUID | None = None

    @property
    def digest(self) -> uuid.UUID:
        """First 16 bytes of the SHA-256 of the row's bytes."""
        return envelope.digest(self.original)

    @property
    def dead_id(self) -> uuid.UUID:
        """Id of the dead letter, the same for the same row of the same department."""
        return envelope.derived_id(ORIGIN, self.topic.name, self.department, self.digest)


def original_bytes(row: Mapping[str, Any]) -> bytes:
    """The row as canonical JSON: what is kept, and what makes two submissions the same row."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_json).encode(
        errors="surrogatepass"
    )


def _json(value: object) -> object:
    """Days and times as the validator takes them from a text; of anything else its type, as no field takes it."""
    if isinstance(value, (date, datetime)):
        return str(value)
    return {type(value).__name__: None}


def summary(faults: Sequence[Fault]) -> str:
    """The faults in one line, the first ``SUMMED_UP`` by name; holds no values."""
    if len(faults) == 1:
        return faults[0].text
    more = [f"and {len(faults) - SUMMED_UP} more"] if len(faults) > SUMMED_UP else []
    return "; ".join([f"{f.reason} {f.field}: {f.text}" for f in faults[:SUMMED_UP]] + more)


def bury_rows(tx: sa.Connection, rows: Sequence[RefusedRow]) -> None:
    """Store each refused row once and announce the new ones on the dead-letter topic, in the same
    transaction. One whose letter was closed since is open again.
    """
    unique = {row.dead_id: row for row in rows}
    fresh = {i for (i,) in bulk.insert_new(tx, dead_letter, [_columns(row) for row in unique.values()], ("dead_id",))}
    outbox.enqueue(tx, [outbox.row(DEADLETTER, _announcement(row)) for i, row in unique.items() if i in fresh])
    if known := unique.keys() - fresh:
        tx.execute(_REOPEN, {"ids": list(known)})


def mended(tx: sa.Connection, accepted: Mapping[uuid.UUID, int]) -> None:
    """Close what the intake refused of events that are ``accepted`` now for the first time, each at epoch ms."""
    if accepted:
        tx.execute(_MENDED, {"ids": list(accepted), "at": max(accepted.values())})


_LETTER = dead_letter.c
_REOPEN = (
    sa.update(dead_letter)
    .where(bulk.any_of(_LETTER.dead_id, "ids"), _LETTER.redriven_at.is_not(None))
    .values(redriven_at=None, closed_why="")
)
_MENDED = (
    sa.update(dead_letter)
    .where(
        bulk.any_of(_LETTER.event_id, "ids"),
        _LETTER.origin == ORIGIN,
        _LETTER.redriven_at.is_(None),
    )
    .values(redriven_at=sa.bindparam("at"))
)


def _columns(row: RefusedRow) -> dict[str, Any]:
    return {
        "dead_id": row.dead_id,
        "origin": ORIGIN,
        "topic": row.topic.name,
        "region": row.region,
        "department": row.department,
        "event_id": row.event_id,
        "occurred_at": row.received_at,
        "digest": row.digest,
        "reason": row.faults[0].reason,
        "field": row.faults[0].field,
        "text": summary(row.faults),
        "original": row.original,
        "headers": [],
    }


def _announcement(row: RefusedRow) -> dict[str, Any]:
    return {
        "event_type": "deadletter.recorded",
        "region": row.region,
        "department": row.department,
        "occurred_at": row.received_at,
        "occurred_text": "",
        "received_at": row.received_at,
        "dead_id": str(row.dead_id),
        "origin_code": ORIGIN,
        "original_topic": row.topic.name,
        "reason_code": row.faults[0].reason,
        "field": row.faults[0].field,
        "text": summary(row.faults),
        "original": row.original[: bounds.CARRIED_BYTES],
        "original_event_id": str(row.event_id or ""),
        "original_digest": str(row.digest),
    }
