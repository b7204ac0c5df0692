"""Handling: chunks of ``oversight.handling.v1`` to what was done about each alert, and the desk looks again."""

from __future__ import annotations

from streams.store.follow import FollowProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``follow``, as a line takes it."""
    return (FollowProjection(),)
