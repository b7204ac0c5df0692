"""The departments as a process of their own: publishes a simulated year and writes down every answer.

Killed between asking and writing the answer, the next one publishes the same slice again: what was unknown becomes
known. Publishes no further than it is allowed, so that events flow at every fault. Decides nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from connectors.publisher import RowResult
from govbus.chaos.notebook import ALLOW, SLICE, Notebook, entries, slices
from govbus.district.model import Row
from govbus.district.publishing import Departments
from schemas.errors import Retryable

PAUSE_S = 0.05


def publish(home: Path, departments: Departments) -> None:
    """Publish what is not answered yet, as it is allowed."""
    book = Notebook(home)
    said = list(entries(home))
    answered = max((e["got"] + SLICE for e in said if "got" in e), default=0)
    asked = max((e["ask"] for e in said if "ask" in e), default=-1)
    for start, share, part in slices(home):
        if start < answered:
            continue
        while share > float((home / ALLOW).read_text()):
            time.sleep(PAUSE_S)
        results = _patiently(book, departments, part, start, start <= asked)
        lines = [[r.topic.name, str(r.record.get(r.topic.key)), str(a.event_id), a.outcome]
                 for r, a in zip(part, results, strict=True)]  # fmt: skip
        book.note({"got": start, "rows": lines, "surprises": departments.tally.surprises})
    book.note({"end": True})


def _patiently(
    book: Notebook, departments: Departments, part: Sequence[Row], start: int, again: bool
) -> list[RowResult]:
    while True:
        book.note({"ask": start})
        try:
            return departments.publish(part, again)
        except Retryable:
            again = True
            time.sleep(0.5)


def main() -> None:
    """``python -m govbus.chaos.feed HOME``; addresses from the settings."""
    from govbus import settings
    from streams.store import failpoints
    from streams.store.engine import connect

    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    given = settings.load()
    failpoints.arm(given.failpoint)
    publish(parser.parse_args().home, Departments(connect(given.database_url)))
    while True:  # like every other process it runs until it is told to stop
        time.sleep(3600)


if __name__ == "__main__":
    main()
