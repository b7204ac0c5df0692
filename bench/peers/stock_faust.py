"""A stock Faust agent with a table: decodes each rating, counts per cell. Its own process.

As its documentation shows it: one agent, ``table[key] += 1``, changelog in Kafka, in-memory store. It prints
four lines a second with the number of ratings counted; it makes no promise that ours makes (DESIGN §2.8).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from typing import Any

import fastavro
import faust

from schemas.codec import FRAME_BYTES, contract, without_instants
from schemas.topics import RATING


def create_app(bootstrap: str, name: str, datadir: str) -> Any:
    """A Faust application named ``name`` that counts ratings of ``bootstrap`` into a table."""
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=datadir,
        web_enabled=False,
        topic_partitions=RATING.partitions,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        autodiscover=False,
    )
    schema = fastavro.parse_schema(without_instants(contract(RATING)))
    cells = app.Table("cells", default=int, partitions=RATING.partitions, key_type=str, value_type=int)
    counted = {"n": 0}

    @app.agent(app.topic(RATING.name, value_serializer="raw", key_serializer="raw"))  # type: ignore[untyped-decorator]
    async def tally(ratings: Any) -> None:
        async for value in ratings:
            r: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
            day = r["occurred_at"] // 86_400_000
            key = f"{r['department']}/{r['item_code']}/{r['channel_code']}/{r['satisfaction_code']}/{day}"
            cells[key] += 1
            counted["n"] += 1

    @app.timer(0.25)  # type: ignore[untyped-decorator]
    async def tell() -> None:
        print(json.dumps({"n": counted["n"], "at": time.time()}), flush=True)

    return app


def main() -> None:
    """``python -m bench.peers.stock_faust --kafka … --name … --datadir …``; runs until told to stop."""
    parser = argparse.ArgumentParser()
    for option in ("--kafka", "--name", "--datadir"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    app = create_app(given.kafka, given.name, given.datadir)
    sys.argv = sys.argv[:1]
    faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
