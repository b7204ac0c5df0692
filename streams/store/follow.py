"""Stores what was done about alerts, and has the desk look at them again: how far each has come is its to derive."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from schemas.topics import HANDLING
from streams.store import desk, frames, sets
from streams.store.projection import Carried
from streams.store.steps import bury, keep_new
from streams.store.tables import handling_event


class FollowProjection:
    """``oversight.handling.v1`` to ``handling_event``."""

    name = "follow"
    topic = HANDLING

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new events and mark their cases."""
        events, refused = frames.events(self.topic, carried)
        bury(tx, refused)
        new = keep_new(
            tx, handling_event, events,
            lambda e: {"case_no": e.record["case_no"], "alert_id": e.record["alert_id"], "body":
            sets.body(e)}, )  # fmt: skip
        desk.mark(tx, desk.CASE, {e.record["case_no"]: e.carried.partition for e in new})
