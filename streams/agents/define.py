"""Items: chunks of ``service.item.v1`` to the versions cases are judged by."""

from __future__ import annotations

from streams.store.define import DefineProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``define``, as a line takes it."""
    return (DefineProjection(),)
