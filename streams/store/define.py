"""Stores service items' versions and marks the cases that are judged by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from schemas.topics import ITEM
from streams.rules import define
from streams.store import references, sets
from streams.store.projection import Carried, Event
from streams.store.steps import bury, decode_rows, keep_new
from streams.store.tables import item_event


class DefineProjection:
    """``service.item.v1`` to ``item_event``."""

    name = "define"
    topic = ITEM

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new versions; cases of these items are due for a check at once."""
        events, refused = decode_rows(carried)
        bury(tx, refused)
        if events:
            references.changed(tx, references.ITEM)
        new = keep_new(tx, item_event, events, _columns)
        references.judge_items_again(tx, define.concern(e.record for e in new))


def _columns(event: Event) -> dict[str, Any]:
    record = event.record
    return {
        "item_code": record["item_code"],
        "item_version": record["item_version"],
        "body": sets.body(event),
    }
