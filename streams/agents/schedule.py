"""Calendars: chunks of ``reference.calendar.v1`` to the calendar that clocks run on."""

from __future__ import annotations

from streams.store.projection import Projection
from streams.store.schedule import ScheduleProjection


def projections() -> tuple[Projection, ...]:
    """The processor named ``schedule``, as a line takes it."""
    return (ScheduleProjection(),)
