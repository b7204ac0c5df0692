"""Cases: chunks of ``service.case.v1`` to the clock and its cards."""

from __future__ import annotations

from streams.store.judge import JudgeProjection
from streams.store.projection import Projection


def projections() -> tuple[Projection, ...]:
    """The processor named ``judge``, as a line takes it."""
    return (JudgeProjection(),)
