"""Resources: chunks of ``directory.resource.v1`` to the shared directory."""

from __future__ import annotations

from streams.store.catalogue import CatalogueProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``catalogue``, as a line takes it."""
    return (CatalogueProjection(),)
