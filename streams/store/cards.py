"""Cards in the database, and what was last said of them. Decides nothing; an ``owner`` is a case's number or a group's
key.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from streams.rules.cards import Alert
from streams.rules.state import Spoken, alert_of
from streams.store import bulk
from streams.store.tables import alert_said, card


class Answering(Protocol):
    """Who answers for a card."""

    @property
    def region(self) -> str: ...
    @property
    def department(self) -> str: ...


def spoken(tx: sa.Connection, owners: Sequence[str]) -> dict[str, dict[str, Spoken]]:
    """What was last said of the alerts of ``owners``, by owner and alert id."""
    found: dict[str, dict[str, Spoken]] = {}
    for row in tx.execute(_SPOKEN, {"owners": list(owners)}):
        said = Spoken(row.seq, row.action, row.content, alert_of(row.alert))
        found.setdefault(row.case_no, {})[str(row.alert_id)] = said
    return found


def latest(tx: sa.Connection, owners: Sequence[str]) -> dict[str, int]:
    """When the last card of each of ``owners`` was issued (epoch ms)."""
    return {row.case_no: row.issued_at for row in tx.execute(_LATEST, {"owners": list(owners)})}


def rows(owner: str, answering: Answering, item_code: str, alerts: Iterable[Alert]) -> list[dict[str, Any]]:
    """The rows of ``card``."""
    return [
        {
            "alert_id": uuid.UUID(a.alert_id),
            "case_no": owner,
            "region": answering.region,
            "department": answering.department,
            "item_code": item_code,
            "kind": a.kind,
            "colour": a.colour,
            "rule_id": a.rule_id,
            "rule_version": a.rule_version,
            "calendar_version": a.calendar_version,
            "due_at": a.due_at,
            "issued_at": a.issued_at,
            "revoked_at": a.revoked_at,
            "revoked_reason": a.revoked_reason,
            "evidence": list(a.evidence),
        }
        for a in alerts
    ]


def replace(tx: sa.Connection, owners: Sequence[str], made: Sequence[Mapping[str, Any]]) -> None:
    """Make ``made`` (of :func:`rows`) all the cards of ``owners``."""
    if owners:
        tx.execute(sa.text("DELETE FROM card WHERE case_no = ANY(:owners)"), {"owners": list(owners)})
        bulk.upsert(tx, card, made)


def remember(tx: sa.Connection, told: Mapping[tuple[str, str], Spoken]) -> None:
    """Keep what was said last, by owner and alert id."""
    bulk.upsert(tx, alert_said, [_spoken_row(owner, alert_id, said) for (owner, alert_id), said in told.items()])


def _spoken_row(owner: str, alert_id: str, said: Spoken) -> dict[str, Any]:
    return {
        "alert_id": uuid.UUID(alert_id),
        "case_no": owner,
        "seq": said.seq,
        "action": said.action,
        "content": said.content,
        "alert": said.alert,
    }


_SPOKEN = sa.text("SELECT case_no, alert_id, seq, action, content, alert FROM alert_said WHERE case_no = ANY(:owners)")
_LATEST = sa.text("SELECT case_no, max(issued_at) AS issued_at FROM card WHERE case_no = ANY(:owners) GROUP BY case_no")
