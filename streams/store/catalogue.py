"""Stores catalogue events and the directory entries that ``streams.rules.catalogue`` derives from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from schemas.topics import ENTRY, RESOURCE
from streams.rules import catalogue
from streams.store import bulk, sets
from streams.store.projection import Carried, Said
from streams.store.steps import bury, decode_rows, keep_new, say
from streams.store.tables import directory_entry, resource_event

_COLUMNS = (
    "resource_code", "region", "department", "entry_version", "last_update_at", "expected_next_at",
    "broken_at", "disputed", "withdrawn",
)  # fmt: skip
_IN_BODY = (*catalogue.TEXTS, "items", "record_count")


class CatalogueProjection:
    """``directory.resource.v1`` to ``resource_event``, ``directory_entry`` and ``directory.entry.v1``."""

    name = "catalogue"
    topic = RESOURCE

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new events, derive their resources' entries again and say them."""
        events, refused = decode_rows(carried)
        bury(tx, refused)
        new = keep_new(tx, resource_event, events, sets.keyed("resource_code"))
        if new:
            resources = sets.stored(tx, resource_event, "resource_code", (e.record["resource_code"] for e in new))
            entries = [e for e in map(catalogue.fold, resources.values()) if e is not None]
            bulk.upsert(tx, directory_entry, [_row(e) for e in entries])
            say(tx, [Said(ENTRY, e) for e in entries])


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**{c: entry[c] for c in _COLUMNS}, "body": {name: entry[name] for name in _IN_BODY}}
