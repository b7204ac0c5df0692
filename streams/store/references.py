"""Calendars and items as the judge reads them: under a lock, and parsed once an epoch.

Whoever changes a reference calls :func:`changed` first in its transaction, then writes; readers call
:func:`held`.
So no case is judged between a change and the mark (``next_check_at`` of 0 or less) that has it judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

import sqlalchemy as sa

from streams.rules.calendar import NATION, CalendarHistory, Publication
from streams.rules.judge import References
from streams.rules.limits import ItemVersion, item_versions
from streams.rules.schedule import Concern
from streams.store.tables import calendar_event, item_event, reference_epoch

CALENDAR, ITEM, CLAIM = "calendar", "item", "claim"
KINDS = (CALENDAR, ITEM, CLAIM)


def held(tx: sa.Connection) -> Mapping[str, int]:
    """Epoch of each kind of reference, kept from changing until this transaction ends (``FOR SHARE``)."""
    query = sa.select(reference_epoch.c.kind, reference_epoch.c.epoch).order_by(reference_epoch.c.kind)
    rows = tx.execute(query.with_for_update(read=True)).all()
    if len(rows) < len(KINDS):
        _ensure(tx)
        rows = tx.execute(query.with_for_update(read=True)).all()
    return {row.kind: row.epoch for row in rows}


def changed(tx: sa.Connection, kind: str) -> None:
    """Begin a change of references: waits for every judge at work, and makes the next one read anew."""
    _ensure(tx)
    row = reference_epoch.c
    tx.execute(sa.update(reference_epoch).where(row.kind == kind).values(epoch=row.epoch + 1))


def _ensure(tx: sa.Connection) -> None:
    insert = "INSERT INTO reference_epoch (kind) SELECT unnest(CAST(:kinds AS text[])) ON CONFLICT DO NOTHING"
    tx.execute(sa.text(insert), {"kinds": list(KINDS)})


def judge_items_again(tx: sa.Connection, item_codes: Iterable[str]) -> None:
    """Mark the cases of these items: the timer judges them again. Call in the transaction that stored the
    items.
    """
    codes = list(item_codes)
    tx.execute(
        sa.text(
            "UPDATE case_state SET next_check_at = 0 WHERE item_code = ANY(:codes) AND next_check_at IS DISTINCT FROM 0"
        ),
        {"codes": codes},
    )


def judge_again(tx: sa.Connection, concerns: Iterable[Concern]) -> None:
    """Mark the cases, and all groups, that these calendars concern: the timer judges them again, block by block.
    Call in the transaction that stored the calendars.
    """
    for concern in concerns:
        tx.execute(_STALE, asked(concern))
        tx.execute(_STALE_GROUPS, asked(concern))


def asked(whom: Concern) -> dict[str, Any]:
    """The parameters of ``WHOM``."""
    moments = whom.moments
    return {
        "region": whom.region,
        "nation": NATION,
        "since": whom.received_at,
        "all": whom.days is None,
        "firsts": [first for first, _ in moments],
        "lasts": [last for _, last in moments],
    }


REGION = "(:region = :nation OR region = :region OR left(region, 6) = :region)"
"""Rows of a calendar's region, whatever its days."""
WHOM = (
    f"{REGION} AND (:all OR known_at > :since OR EXISTS (SELECT FROM "
    "unnest(CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])) AS changed(f, l) "
    "WHERE counted_from <= l AND (counted_to IS NULL OR counted_to >= f)))"
)
"""Rows of ``case_state`` that a calendar concerns (``streams.rules.schedule.Concern``), in SQL."""
_STALE = sa.text(
    "UPDATE case_state SET next_check_at = CASE WHEN next_check_at < 0 THEN -:since "
    "ELSE -least(next_check_at, :since) END "
    f"WHERE coalesce(next_check_at, 1) NOT BETWEEN -:since AND 0 AND {WHOM}"
)
"""The mark keeps from when on the case may be another: from the calendar's ``received_at``, or from where it was to be
judged next (``CaseState.next_check_at``).
"""
_STALE_GROUPS = sa.text(
    f"UPDATE group_state SET next_check_at = 0 WHERE next_check_at IS DISTINCT FROM 0 AND {REGION}"
)


def publications(tx: sa.Connection) -> list[Publication]:
    """All published calendars."""
    c = calendar_event.c
    rows = tx.execute(sa.select(c.region, c.year, c.revision, c.received_at, c.body))
    return [
        Publication.of(
            {
                **r.body,
                "region": r.region,
                "year": r.year,
                "revision": r.revision,
                "received_at": r.received_at,
            }
        )
        for r in rows
    ]


class ReferenceReader:
    """Parsed references, read again only when their epoch has moved. Threads may share one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._epochs: dict[str, int] = {}
        self._calendars = CalendarHistory()
        self._items: dict[str, tuple[ItemVersion, ...]] = {}

    def read(self, tx: sa.Connection, epochs: Mapping[str, int], item_codes: Iterable[str]) -> References:
        """The references for cases of ``item_codes``; ``epochs`` as :func:`held` gave them in this
        transaction.
        """
        with self._lock:
            if self._epochs.get(CALENDAR) != epochs[CALENDAR]:
                self._calendars = CalendarHistory(publications(tx))
            if self._epochs.get(ITEM) != epochs[ITEM]:
                self._items = {}
            self._epochs = dict(epochs)
            missing = sorted(set(item_codes) - self._items.keys())
            if missing:  # what another thread holds stays as it is
                self._items = {**self._items, **_items(tx, missing)}
            return References(self._calendars, self._items)


def _items(tx: sa.Connection, codes: list[str]) -> dict[str, tuple[ItemVersion, ...]]:
    c = item_event.c
    wanted = sa.cast(codes, sa.ARRAY(sa.Text))
    query = sa.select(c.item_code, c.item_version, c.event_type, c.occurred_at, c.body)
    records: dict[str, list[dict[str, Any]]] = {code: [] for code in codes}
    for row in tx.execute(query.where(c.item_code == sa.any_(wanted))):
        own = {"item_version": row.item_version, "event_type": row.event_type, "occurred_at": row.occurred_at}
        records[row.item_code].append({**row.body, **own})
    return {code: item_versions(found) for code, found in records.items()}
