"""The supervisor's desk: one row an alert, as its last word has it. Decides which word is the last, and which alerts
leave something to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from consumers.alerts.queue import RULING
from schemas.clock import wall_clock
from schemas.topics import ALERT, Topic
from streams.store import desk
from streams.store.projection import Event
from streams.store.tables import alert_inbox, alert_life

ACTIONS = {"alert.issued": "ISSUED", "alert.revoked": "REVOKED", "alert.retracted": "RETRACTED"}
CLOSED = "CLOSED"
"""The stage (govbus.handling-stage) after which nothing is left to do about an alert that stands."""
MINUTE_MS = 60_000
ROWS = 500
"""Rows that the database sends at a time to who reads a list."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the alerts that stand are asked for; empty: whichever.

    ``overdue_at``: only those that something was due about at that moment (epoch ms) and is not done; ``closed``: also
    those whose handling has come to its end; ``limit``: so many of the oldest, 0: all.
    """

    case_no: str = ""
    department: str = ""
    kind: str = ""
    colour: str = ""
    overdue_at: int | None = None
    closed: bool = False
    limit: int = 0


ANY = Wanted()


class Inbox:
    """Effect of ``oversight.alert.v1``: the highest ``alert_seq`` wins; a retracted alert stays as a row."""

    name = "alerts"
    topics: tuple[Topic, ...] = (ALERT,)
    patience_ms = 100

    def __init__(self, clock: Callable[[], int] = wall_clock) -> None:
        self._clock = clock

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Bring the desk up to date with ``events``, word by word in the order of each alert."""
        seen_at = self._clock()
        rows = [_row(event, seen_at) for event in events]
        if rows:
            tx.execute(_UPSERT, sorted(rows, key=lambda r: (str(r["alert_id"]), r["alert_seq"])))
            desk.begin(tx, [(r["alert_id"], r["case_no"], *r["evidence"][:1]) for r in rows if _of_a_rating(r)])
            desk.mark(tx, desk.CASE, {row["case_no"]: desk.partition_of(row["case_no"]) for row in rows})


def open_alerts(tx: sa.Connection, wanted: Wanted = ANY) -> Iterator[sa.Row[Any]]:
    """The alerts that stand, oldest first, and how far their handling has come (``stage`` "": nobody looked yet). The
    decisions on appeals, of which there is nothing left to do, only where they are asked for by their kind.
    """
    inbox, lived = alert_inbox.c, alert_life.c
    given = ((inbox.case_no, wanted.case_no), (inbox.department, wanted.department), (inbox.colour, wanted.colour))
    stands = [inbox.action == "ISSUED", sa.func.coalesce(lived.out_at, 0) == 0]
    stands += [column == value for column, value in given if value]
    stands.append(inbox.kind == wanted.kind if wanted.kind else inbox.kind != RULING)
    if wanted.overdue_at is not None:  # the minute that is due is still in time
        stands.append(lived.next_due_at <= wanted.overdue_at - MINUTE_MS)
    if not wanted.closed:
        stands.append(sa.func.coalesce(lived.stage, "") != CLOSED)
    query = _HANDLED.where(*stands).order_by(inbox.issued_at, inbox.alert_id).limit(wanted.limit or None)
    yield from tx.execute(query, execution_options={"yield_per": ROWS})


def one_alert(tx: sa.Connection, alert_id: uuid.UUID) -> sa.Row[Any] | None:
    """An alert with all that is known of its handling; None if the desk never heard of it."""
    found: sa.Row[Any] | None = tx.execute(_HANDLED.where(alert_inbox.c.alert_id == alert_id)).one_or_none()
    return found


_HANDLED = sa.select(
    alert_inbox,
    sa.func.coalesce(alert_life.c.stage, "").label("stage"),
    sa.func.coalesce(alert_life.c.next_timer, "").label("next_timer"),
    alert_life.c.next_due_at,
    alert_life.c.out_at,
    alert_life.c.dues,
    alert_life.c.steps,
).join_from(
    alert_inbox,
    alert_life,
    sa.and_(
        alert_life.c.case_no == alert_inbox.c.case_no,
        alert_life.c.alert_id == sa.cast(alert_inbox.c.alert_id, sa.Text),
    ),
    isouter=True,
)


def _row(event: Event, seen_at: int) -> dict[str, Any]:
    record = event.record
    issued = record["event_type"] == "alert.issued"
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
        "item_code": record["item_code"],
        "rule_id": record["rule_id"],
        "due_at": record["due_at"],
        "known_at": record["received_at"],
        "reason": record["revoked_reason_code"],
        "evidence": record["evidence"],
        "named": record["named"],
        "given_at": record["occurred_at"] if issued and record["kind_code"] == "BAD_RATING" else None,
    }


def _of_a_rating(row: dict[str, Any]) -> bool:
    return row["kind"] == "BAD_RATING" and bool(row["evidence"])


def _upsert() -> sa.Insert:
    new = insert(alert_inbox)
    changed: dict[str, Any] = {
        c.name: new.excluded[c.name] for c in alert_inbox.c if c.name not in ("alert_id", "seen_at", "former")
    }
    moved = sa.func.jsonb_build_array(sa.func.jsonb_build_array(new.excluded.known_at, alert_inbox.c.department))
    answers_another = new.excluded.department != alert_inbox.c.department
    changed["former"] = sa.case((answers_another, alert_inbox.c.former.op("||")(moved)), else_=alert_inbox.c.former)
    for name in ("named", "given_at"):  # a revocation does not repeat it
        changed[name] = sa.func.coalesce(new.excluded[name], alert_inbox.c[name])
    # a correction that leaves a bad rating bad, and a revocation, do not begin its deadlines anew (DOMAIN §5.7);
    # ``desk.begin`` dates it by its ratings, but where a rebuild has not read them again yet
    goes_on = sa.or_(alert_inbox.c.action == "ISSUED", new.excluded.action != "ISSUED")
    for name in ("issued_at", "given_at"):
        first = sa.func.coalesce(alert_inbox.c[name], new.excluded[name])
        changed[name] = sa.case((sa.and_(alert_inbox.c.kind == "BAD_RATING", goes_on), first), else_=changed[name])
    return new.on_conflict_do_update(
        index_elements=["alert_id"], set_=changed, where=new.excluded.alert_seq >= alert_inbox.c.alert_seq
    )


_UPSERT = _upsert()
