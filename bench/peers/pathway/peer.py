"""Pathway: decode, group by cell, count, with its input persisted to the file system.

Reads the topic up to its end (``mode="static"``) and ends: only then is everything known to be persisted. What it
persists without a licence key is what it read, so after a crash it counts again from there.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from bench.peers.said import Progress, cell_of, dump, options


def main() -> None:
    """Count, wait until ``pw.run`` has ended, dump what the CSV sink holds."""
    import pathway as pw  # type: ignore[import-not-found,unused-ignore]

    given = options()
    out = given.home / "cells.csv"
    settings = {"bootstrap.servers": given.kafka, "group.id": given.name, "auto.offset.reset": "earliest"}
    cell = cell_of(given.schema, given.fields)
    records = pw.io.kafka.read(settings, topic=given.topic, format="raw", mode="static", name="records")
    named = records.select(cell=pw.apply_with_type(cell, str, pw.this.data))
    cells = named.groupby(pw.this.cell).reduce(pw.this.cell, n=pw.reducers.count())
    pw.io.csv.write(cells, str(out))
    progress = Progress()
    pw.io.subscribe(named.reduce(n=pw.reducers.count()), on_change=_follow(progress))
    backend = pw.persistence.Backend.filesystem(str(given.home / "state"))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=pw.persistence.Config(backend))
    progress.durable()
    dump(given.dump, _last(out))


def _follow(progress: Progress) -> Any:
    def on_change(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG001
        if is_addition:
            progress.n = row["n"]

    return on_change


def _last(out: Path) -> dict[str, int]:
    """The counts that stand: additions less withdrawals."""
    cells: dict[str, int] = {}
    with out.open(newline="") as rows:
        for row in csv.DictReader(rows):
            cells[row["cell"]] = cells.get(row["cell"], 0) + int(row["n"]) * int(row["diff"])
    return {cell: n for cell, n in cells.items() if n}


if __name__ == "__main__":
    main()
