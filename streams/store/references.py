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

from streams.rules.calendar import DISTRICT_DIGITS, NATION, CalendarHistory, Publication
from streams.rules.judge import References
from streams.rules.limits import HANDLING_ITEM, IMPLEMENTING, ItemVersion, implementing, item_versions
from streams.rules.schedule import Concern
from streams.store.tables import calendar_event

CALENDAR, ITEM, CLAIM = "calendar", "item", "claim"
KINDS = (CALENDAR, ITEM, CLAIM)


def held(tx: sa.Connection) -> Mapping[str, int]:
    """Epoch of each kind of reference, kept from changing until this transaction ends."""
    rows = tx.execute(_HELD, {"lock": LOCK}).all()
    if len(rows) < len(KINDS):
        _ensure(tx)
        rows = tx.execute(_HELD, {"lock": LOCK}).all()
    return {row.kind: row.epoch for row in rows}


def epochs(tx: sa.Connection) -> Mapping[str, int]:
    """As :func:`held`, but keeps nobody from changing any: for whoever only reads, in one snapshot."""
    return dict.fromkeys(KINDS, 0) | {row.kind: row.epoch for row in tx.execute(_EPOCHS)}


def changed(tx: sa.Connection, kind: str) -> None:
    """Begin a change of references: waits for every judge at work, and makes the next one wait and read anew."""
    _ensure(tx)
    tx.execute(_NEXT_EPOCH, {"kind": kind, "lock": LOCK})


def _ensure(tx: sa.Connection) -> None:
    tx.execute(_ENSURE, {"kinds": list(KINDS)})


LOCK = 0x72656673  # "refs"
"""Judges share it, and whoever changes references has it alone. PostgreSQL lets them queue for it, which it does not
for a row's lock: there one judge after another would share the row, and who wants to change it could wait for ever.
"""
_HELD = sa.text(  # the rows are locked too, so that they are read as they are after the wait for the lock
    "SELECT kind, epoch FROM reference_epoch "
    "WHERE (SELECT 1 FROM pg_advisory_xact_lock_shared(:lock)) = 1 ORDER BY kind FOR SHARE"
)
_EPOCHS = sa.text("SELECT kind, epoch FROM reference_epoch")
_NEXT_EPOCH = sa.text(
    "UPDATE reference_epoch SET epoch = epoch + 1 WHERE kind = :kind "
    "AND (SELECT 1 FROM pg_advisory_xact_lock(:lock)) = 1"
)
_ENSURE = sa.text("INSERT INTO reference_epoch (kind) SELECT unnest(CAST(:kinds AS text[])) ON CONFLICT DO NOTHING")


def judge_items_again(tx: sa.Connection, item_codes: Iterable[str]) -> None:
    """Mark the cases of these items, and of their handling items: the timer judges them again. Call in the transaction
    that stored the items.
    """
    codes = list(item_codes)
    tx.execute(_STALE_ITEMS, {"codes": codes})
    tx.execute(_STALE_HANDLING_ITEMS, {"codes": [c for c in codes if len(c) == IMPLEMENTING], "places": HANDLING_ITEM})


_STALE_ITEMS = sa.text(
    "UPDATE case_state SET next_check_at = 0 WHERE item_code = ANY(:codes) AND next_check_at IS DISTINCT FROM 0"
)
_STALE_HANDLING_ITEMS = sa.text(  # the range is for the index
    "UPDATE case_state SET next_check_at = 0 FROM unnest(CAST(:codes AS text[])) AS item(code) "
    "WHERE item_code BETWEEN code || '00' AND code || '99' AND length(item_code) = :places "
    "AND starts_with(item_code, code) AND next_check_at IS DISTINCT FROM 0"
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


REGION = f"(:region = :nation OR region = :region OR left(region, {DISTRICT_DIGITS}) = :region)"
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
            wanted = {name for code in item_codes for name in (code, implementing(code))}
            missing = sorted(wanted - self._items.keys())
            if missing:  # what another thread holds stays as it is
                self._items = {**self._items, **_items(tx, missing)}
            return References(self._calendars, self._items)


def _items(tx: sa.Connection, codes: list[str]) -> dict[str, tuple[ItemVersion, ...]]:
    records: dict[str, list[dict[str, Any]]] = {code: [] for code in codes}
    for row in tx.execute(_ITEMS, {"codes": codes}):
        own = {"item_version": row.item_version, "event_type": row.event_type, "occurred_at": row.occurred_at}
        records[row.item_code].append({**row.body, **own})
    return {code: item_versions(found) for code, found in records.items()}


_ITEMS = sa.text(
    "SELECT item_code, item_version, event_type, occurred_at, body FROM item_event WHERE item_code = ANY(:codes) "
    "ORDER BY received_at, event_id"
)
