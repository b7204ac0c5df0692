"""Quix Streams: decode, group by cell, count in its RocksDB state with a changelog; at least once.

Its state belongs to the message key, so counting by another key goes through a repartition topic; ``group_by`` makes
it, as its documentation shows. All else is at its defaults.
"""

from __future__ import annotations

from typing import Any

from bench.peers.said import Progress, cell_of, dump, options


def main() -> None:
    """Count, stop in order (that commits the last checkpoint), dump."""
    from quixstreams import Application  # type: ignore[import-not-found,unused-ignore]

    given = options()
    app = Application(
        broker_address=given.kafka,
        consumer_group=given.name,
        auto_offset_reset="earliest",
        state_dir=str(given.home),
        loglevel="ERROR",
    )
    progress, cells = Progress(), dict[str, int]()
    topic = app.topic(given.topic, value_deserializer="bytes", key_deserializer="bytes")
    frame = app.dataframe(topic).apply(cell_of(given.schema, given.fields))
    frame = frame.group_by(lambda cell: cell, "cell", "str", "str", "str", "str")
    frame.update(_count(app, progress, cells, given.count), stateful=True)
    app.run()
    progress.durable()
    dump(given.dump, cells)


def _count(app: Any, progress: Progress, cells: dict[str, int], count: int) -> Any:
    """One more in the cell's state; ``cells`` mirrors the state for the dump."""

    def count_one(cell: str, state: Any) -> None:
        n = state.get("n", 0) + 1
        state.set("n", n)
        cells[cell] = n
        progress.n += 1
        if progress.n == count:
            app.stop()

    return count_one


if __name__ == "__main__":
    main()
