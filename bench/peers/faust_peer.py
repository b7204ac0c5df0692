"""A stock Faust agent with a table: decodes each record, counts per cell. Its own process.

As Faust's documentation shows it: one agent, ``table[key] += 1``, changelog in Kafka, in-memory store. It makes no
promise that ours makes (DESIGN §2.8).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust

from bench.peers.said import Progress, cell_of, dump, options


def create_app(given: Any, partitions: int) -> Any:
    """A Faust application that counts ``given.count`` records into a table, says so and goes on doing nothing."""
    app = faust.App(
        given.name,
        broker=f"kafka://{given.kafka}",
        store="memory://",
        datadir=str(given.home),
        web_enabled=False,
        topic_partitions=partitions,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        autodiscover=False,
    )
    cells = app.Table("cells", default=int, partitions=partitions, key_type=str, value_type=int)
    cell, progress = cell_of(given.schema, given.fields), Progress()
    offsets: dict[int, int] = {}

    @app.agent(app.topic(given.topic, value_serializer="raw", key_serializer="raw"))  # type: ignore[untyped-decorator]
    async def tally(records: Any) -> None:
        async for event in records.events():
            cells[cell(event.value)] += 1
            offsets[event.message.partition] = event.message.offset + 1
            progress.n += 1
            if progress.n == given.count:
                await _finish(app, progress)
                dump(given.dump, dict(cells.items()), offsets)
                await asyncio.sleep(1_000_000)

    return app


async def _finish(app: Any, progress: Progress) -> None:
    """What Faust would do at its next commit: changelog and offsets."""
    await app.producer.flush()
    await app.consumer.commit()
    progress.durable()


def main() -> None:
    """``python -m bench.peers.faust_peer --kafka … --count …``; runs until told to stop."""
    from schemas.topics import BY_NAME

    given = options()
    app = create_app(given, BY_NAME[given.topic].partitions)
    sys.argv = sys.argv[:1]
    faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
