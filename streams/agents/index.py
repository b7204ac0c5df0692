"""Licences: chunks of ``licence.record.v1`` to the licence index."""

from __future__ import annotations

from streams.store.index import IndexProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``index``, as a line takes it."""
    return (IndexProjection(),)
