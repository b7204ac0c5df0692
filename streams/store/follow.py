"""Stores what was done about alerts, and the stage that ``streams.rules.follow`` derives from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from schemas.topics import HANDLING
from streams.rules import follow
from streams.store import bulk, desk, frames, sets
from streams.store.projection import Carried
from streams.store.steps import bury, keep_new
from streams.store.tables import handling, handling_event


class FollowProjection:
    """``oversight.handling.v1`` to ``handling_event`` and ``handling``."""

    name = "follow"
    topic = HANDLING

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new events and derive the stage of their alerts again."""
        events, refused = frames.events(self.topic, carried)
        bury(tx, refused)
        new = keep_new(
            tx, handling_event, events,
            lambda e: {"case_no": e.record["case_no"], "alert_id": e.record["alert_id"], "body":
            sets.body(e)}, )  # fmt: skip
        if new:
            alerts = sets.stored(tx, handling_event, "alert_id", (e.record["alert_id"] for e in new))
            bulk.upsert(tx, handling, [asdict(follow.fold(told)) for told in alerts.values()])
            desk.mark(tx, desk.CASE, {e.record["case_no"]: e.carried.partition for e in new})
