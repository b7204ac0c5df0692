"""Stores published calendars and marks the cases that must be looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from schemas.topics import CALENDAR
from streams.rules import calendar, schedule
from streams.rules.calendar import Publication
from streams.store import desk, references, sets
from streams.store.projection import Carried, Event, Refused
from streams.store.steps import bury, decode_rows, keep_new
from streams.store.tables import calendar_event


class ScheduleProjection:
    """``reference.calendar.v1`` to ``calendar_event``."""

    name = "schedule"
    topic = CALENDAR

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new calendars; cases that may count their days are due for a check at once."""
        decoded, refused = decode_rows(carried)
        faults = [(e, calendar.fault(e.record)) for e in decoded]
        bury(tx, [*refused, *(Refused(e.carried, fault, e) for e, fault in faults if fault)])
        events = [e for e, fault in faults if fault is None]
        if events:
            references.changed(tx, references.CALENDAR)
        new = keep_new(tx, calendar_event, events, _columns)
        if new:
            known = references.publications(tx)
            published = [Publication.of(e.record) for e in new]
            references.judge_again(tx, (schedule.concern(p, known) for p in published))
            desk.mark_all(tx)


def _columns(event: Event) -> dict[str, Any]:
    return {"year": event.record["year"], "revision": event.record["revision"], "body": sets.body(event)}
