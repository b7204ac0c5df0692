"""What a Python peer needs: its options, the cell of a record, and the words of ``bench.peers.protocol``.

Runs in the peers' own virtual environments, so it imports nothing but the standard library and fastavro.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FRAME_BYTES = 5
DAY_MS = 86_400_000
SHANGHAI_MS = 8 * 3_600_000


def options() -> Any:
    """``kafka``, ``topic``, ``name`` (unique), ``home`` (a directory), ``schema`` (file), ``fields`` (by commas),
    ``count`` and ``dump`` (file).
    """
    parser = argparse.ArgumentParser()
    for option in ("kafka", "topic", "name", "schema", "fields"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--dump", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def cell_of(schema_file: str, names: str) -> Callable[[bytes], str]:
    """A function from a framed Avro value to its cell: the fields and the day, joined by tabs."""
    import fastavro

    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    fields = names.split(",")

    def cell(value: bytes) -> str:
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
        day = (record["occurred_at"] + SHANGHAI_MS) // DAY_MS
        return "\t".join([*[record[f] for f in fields], str(day)])

    return cell


class Progress:
    """How many are counted; said four times a second from a thread of its own."""

    def __init__(self) -> None:
        self.n = 0
        say(began=time.time())
        self._whole = threading.Event()
        threading.Thread(target=self._tell, daemon=True).start()

    def durable(self) -> None:
        """Say that all that was counted is durable now."""
        self._whole.set()
        say(n=self.n, at=time.time())
        say(durable=time.time())

    def _tell(self) -> None:
        while not self._whole.wait(0.25):
            say(n=self.n, at=time.time())


def say(**words: Any) -> None:
    """One line of the protocol."""
    print(json.dumps(words), flush=True)


def dump(file: Path, cells: Mapping[str, int], offsets: Mapping[int, int] | None = None) -> None:
    """Write the counts; ``offsets``: the next offset of each partition, if not all of the topic was counted."""
    with file.open("w") as out:
        out.writelines(f"{cell}\t{n}\n" for cell, n in cells.items())
    say(dumped=True, offsets=offsets)
