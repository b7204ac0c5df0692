"""The shared directory as departments see it, built from ``directory.entry.v1`` alone; search and freshness.

Decides which entry version is the last, how hits rank, and how fresh an entry is *when it is read*
(DOMAIN §7.5: FRESH for a cycle, DUE while the grace lasts, then STALE, BROKEN two cycles on). Cycle and grace are the
entry's, not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schemas.topics import ENTRY, Topic
from streams.store.projection import Event
from streams.store.tables import directory_view

TITLE, SUMMARY, ITEMS = 100, 10, 1
"""Weight of a word found in the title, in the summary, among the information items."""


class View:
    """Effect of ``directory.entry.v1``: the highest ``entry_version`` of a resource stands."""

    name = "directory"
    topics: tuple[Topic, ...] = (ENTRY,)
    patience_ms = 250

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Bring the view up to date; of one resource only the highest version is written."""
        last: dict[str, dict[str, Any]] = {}
        for event in events:
            row = _row(event.record)
            if row["entry_version"] >= last.get(row["resource_code"], row)["entry_version"]:
                last[row["resource_code"]] = row
        if last:
            tx.execute(_UPSERT, [last[code] for code in sorted(last)])


@dataclass(frozen=True, slots=True)
class Hit:
    """One entry found: its rank (higher is better), its freshness when read, and the entry itself."""

    rank: int
    freshness: str
    entry: Mapping[str, Any]


def search(
    tx: sa.Connection, words: Sequence[str], now_ms: int, share_type: str = "", department: str = ""
) -> list[Hit]:
    """Entries that hold every word (as a substring, any case) in title, summary or items; best first.

    Withdrawn entries are not found. ``now_ms``: epoch milliseconds, for freshness. No words: every entry.
    """
    view = directory_view.c
    rank: sa.ColumnElement[int] = sa.literal(0)
    query = sa.select(view.body)
    for word in words:
        items = sa.cast(view.body["items"], sa.Text)
        places = [(view.title, TITLE), (view.summary, SUMMARY), (items, ITEMS)]
        found = [(column.icontains(word, autoescape=True), weight) for column, weight in places]
        query = query.where(sa.or_(*(test for test, _ in found)))
        rank = rank + sum((sa.case((test, weight), else_=0) for test, weight in found), sa.literal(0))
    if share_type:
        query = query.where(view.share_type == share_type)
    if department:
        query = query.where(view.department == department)
    rows = tx.execute(query.add_columns(rank.label("rank")).order_by(sa.desc("rank"), view.resource_code))
    return [Hit(r, freshness(body, now_ms), body) for body, r in rows if not body["withdrawn"]]


def freshness(entry: Mapping[str, Any], now_ms: int) -> str:
    """FRESH, DUE, STALE or BROKEN at ``now_ms``; an entry that expects no update (irregular) is FRESH.

    A cycle lies between ``expected_next_at`` (one cycle and its grace on) and ``broken_at`` (two and the same grace).
    """
    last, expected, broken = entry["last_update_at"], entry["expected_next_at"], entry["broken_at"]
    if last is None or expected is None or broken is None or now_ms < last + (broken - expected):
        return "FRESH"
    return "DUE" if now_ms < expected else "STALE" if now_ms < broken else "BROKEN"


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resource_code": record["resource_code"],
        "entry_version": record["entry_version"],
        "department": record["department"],
        "title": record["title"],
        "summary": record["summary"],
        "share_type": record["share_type_code"],
        "body": dict(record),
    }


def _upsert() -> sa.Insert:
    new = insert(directory_view)
    changed = {c.name: new.excluded[c.name] for c in directory_view.c if c.name != "resource_code"}
    return new.on_conflict_do_update(
        index_elements=["resource_code"],
        set_=changed,
        where=new.excluded.entry_version > directory_view.c.entry_version,
    )


_UPSERT = _upsert()
