"""Ratings: chunks of ``service.rating.v1`` to rollups, uploads and bad-rating alerts."""

from __future__ import annotations

from streams.store.projection import Projection
from streams.store.tally import TallyProjection


def projections(uploads: bool = True) -> tuple[Projection, ...]:
    """The processor named ``tally``, as a line takes it; without ``uploads`` it says no single ratings."""
    return (TallyProjection(uploads),)
