"""The supervisor's desk: one row an alert, as its last word has it. Decides only which word is the last."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schemas.topics import ALERT, Topic
from streams.store.projection import Event
from streams.store.tables import alert_inbox

ACTIONS = {"alert.issued": "ISSUED", "alert.revoked": "REVOKED", "alert.retracted": "RETRACTED"}


def now_ms() -> int:
    """The wall clock, epoch milliseconds UTC."""
    return time.time_ns() // 1_000_000


class Inbox:
    """Effect of ``oversight.alert.v1``: the highest ``alert_seq`` wins; a retracted alert stays as a row."""

    name = "alerts"
    topics: tuple[Topic, ...] = (ALERT,)

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Bring the desk up to date with ``events``; of one alert only its last word is written."""
        seen_at = self._clock()
        last: dict[uuid.UUID, dict[str, Any]] = {}
        for event in events:
            row = _row(event, seen_at)
            if row["alert_seq"] >= last.get(row["alert_id"], row)["alert_seq"]:
                last[row["alert_id"]] = row
        if last:
            tx.execute(_UPSERT, sorted(last.values(), key=lambda r: str(r["alert_id"])))


def open_alerts(tx: sa.Connection) -> list[sa.Row[Any]]:
    """The alerts that stand, oldest first: neither revoked nor retracted."""
    query = sa.select(alert_inbox).where(alert_inbox.c.action == "ISSUED").order_by(alert_inbox.c.issued_at)
    return list(tx.execute(query))


def _row(event: Event, seen_at: int) -> dict[str, Any]:
    record = event.record
    return {
        "alert_id": uuid.UUID(record["alert_id"]),
        "alert_seq": record["alert_seq"],
        "action": ACTIONS[record["event_type"]],
        "region": record["region"],
        "department": record["department"],
        "case_no": record["case_no"],
        "kind": record["kind_code"],
        "colour": record["colour_code"],
        "summary": record["summary"],
        "issued_at": record["issued_at"],
        "seen_at": seen_at,
    }


def _upsert() -> sa.Insert:
    new = insert(alert_inbox)
    changed = {c.name: new.excluded[c.name] for c in alert_inbox.c if c.name not in ("alert_id", "seen_at")}
    return new.on_conflict_do_update(
        index_elements=["alert_id"], set_=changed, where=new.excluded.alert_seq > alert_inbox.c.alert_seq
    )


_UPSERT = _upsert()
