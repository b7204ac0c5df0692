"""Ratings that contradict the clock, on their way from the ratings' processor to the judge of cases.

Both write transactions of their own, and either may come first. So a claim is stored with its rating, and told to the
judge afterwards, beside the hot path and under the lock of references: a case that exists then is judged again, one
that does not will find the claim when it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from streams.rules import claims
from streams.rules.claims import Claim
from streams.store import bulk, references
from streams.store.tables import rating_claim, rating_claim_news

BLOCK = 1_000
Record = Mapping[str, Any]


def keep(tx: sa.Connection, ratings: Iterable[tuple[str, Record]]) -> None:
    """Store what new ratings (event id, record) claim, and note that their judge has to be told."""
    rows = [_row(event_id, record) for event_id, record in ratings if claims.matters(record)]
    if rows:
        bulk.insert_new(tx, rating_claim, rows, ())
        bulk.insert_new(tx, rating_claim_news, [{"case_no": row["case_no"]} for row in rows], ())


def tell(tx: sa.Connection) -> bool:
    """Have the cases that exist judged again; True if more is left to tell. The last thing of its transaction, for no
    case is judged until it ends.
    """
    cases = bulk.take(tx, rating_claim_news, "case_no", BLOCK)
    if cases:
        references.changed(tx, references.CLAIM)
        tx.execute(_STALE, {"cases": sorted(set(cases))})
    return len(cases) == BLOCK


def of_cases(tx: sa.Connection, cases: Sequence[str]) -> dict[str, tuple[Claim, ...]]:
    """What is claimed about these cases."""
    found: dict[str, list[Claim]] = {}
    for row in tx.execute(_CLAIMS, {"cases": list(cases)}):
        claim = Claim(str(row.event_id), row.service_no, row.assess_no, row.revision, row.too_slow, row.received_at)
        found.setdefault(row.case_no, []).append(claim)
    return {case_no: tuple(sorted(made, key=lambda c: (c.at, c.event_id))) for case_no, made in found.items()}


def _row(event_id: str, record: Record) -> dict[str, Any]:
    return {
        "event_id": UUID(event_id),
        "case_no": record["case_no"],
        "service_no": record["service_no"],
        "assess_no": record["assess_no"],
        "revision": record["revision"],
        "too_slow": claims.too_slow(record),
        "received_at": record["received_at"],
    }


_STALE = sa.text(
    "UPDATE case_state SET next_check_at = 0 WHERE case_no = ANY(:cases) AND next_check_at IS DISTINCT FROM 0"
)
_CLAIMS = sa.text(
    "SELECT event_id, case_no, service_no, assess_no, revision, too_slow, received_at FROM rating_claim "
    "WHERE case_no = ANY(:cases)"
)
