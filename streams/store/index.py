"""Stores licences: events, and the index that ``streams.rules.index`` derives from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import sqlalchemy as sa

from schemas.topics import LICENCE
from streams.rules import index
from streams.store import frames, sets
from streams.store.projection import Carried
from streams.store.steps import bury, keep_new
from streams.store.tables import licence, licence_event


class IndexProjection:
    """``licence.record.v1`` to ``licence_event`` and ``licence``."""

    name = "index"
    topic = LICENCE

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new events and derive the families they belong to again."""
        events, refused = frames.events(self.topic, carried)
        bury(tx, refused)
        new = keep_new(tx, licence_event, events, sets.keyed("family"))
        if new:
            families = sets.stored(tx, licence_event, "family", (e.record["family"] for e in new))
            rows = [_row(s) for told in families.values() for s in index.fold(told)]
            sets.replace(tx, licence, "family", list(families), rows)


def _row(standing: index.Standing) -> dict[str, Any]:
    row = asdict(standing)
    for name in ("valid_from_on", "valid_to_on"):
        row[name] = date.fromisoformat(row[name]) if row[name] else None
    return row
