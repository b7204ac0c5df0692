"""A database that knows the references (items, calendars) and nothing else: what every benchmark of cases starts from.

Cases would otherwise be judged provisionally, and again once their items are known: another work than the one meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench import clones, load, ours
from bench.given import Given
from bench.ours import Work
from bench.stand import Stand
from schemas.topics import CALENDAR, ITEM

TEMPLATE = "known"


@contextmanager
def known(place: Stand, given: Given) -> Iterator[str]:
    """Name of a database to be copied; its cursors stand at the ends of the topics of references."""
    references = clones.references()
    given.tell("references", 0, len(references))
    for topic in (ITEM, CALENDAR):
        rows = [clones.Template.of(row, lambda key: key) for row in references if row.topic is topic]
        for _ in load.pour(place.kafka, topic, [(t.key.encode(), t.value, t.headers) for t in rows]):
            continue
    work = Work((ITEM, CALENDAR), len(references), lambda _: None)
    with place.database(name=TEMPLATE) as url:
        with place.directory("references") as home:
            ours.measure(place, url, work, home, lambda n: given.tell("references", n, len(references)))
        yield TEMPLATE
