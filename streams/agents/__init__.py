"""Which processor follows which topic. One module per verb; its projection, its test and, where it has one, its rule
bear the same name.
"""

from __future__ import annotations

from streams.store.projection import Projection


def projections(uploads: bool = True) -> tuple[Projection, ...]:
    """Every processor of a worker, one for each inbound topic; ``uploads``: say single ratings to the province."""
    from streams.agents import catalogue, count, define, follow, index, judge, schedule, tally

    verbs = (define, schedule, judge, index, catalogue, follow, count)
    return (*tally.projections(uploads), *(projection for verb in verbs for projection in verb.projections()))
