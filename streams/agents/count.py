"""Supervision records and hotline tickets: stored and counted, nothing decided yet."""

from __future__ import annotations

from streams.store.count import BehaviourProjection, TicketProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The two processors that only keep what came."""
    return (BehaviourProjection(), TicketProjection())
