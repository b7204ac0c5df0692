"""Handling: chunks of ``oversight.handling.v1`` to the stage each alert has reached."""

from __future__ import annotations

from streams.store.follow import FollowProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``follow``, as a line takes it."""
    return (FollowProjection(),)
