"""A peer for the tests: reads the whole topic, counts one rating into a cell that is not its own, says it is done."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.peers.said import cell_of, dump, options, say


def main() -> None:
    given = options()
    consumer: Any = Consumer({"bootstrap.servers": given.kafka, "group.id": given.name})
    consumer.assign([TopicPartition(given.topic, p, 0) for p in range(12)])
    cell, cells = cell_of(given.schema, given.fields), Counter[str]()
    say(began=time.time())
    while (counted := cells.total()) < given.count:
        cells.update(cell(message.value()) for message in consumer.consume(given.count - counted, 0.2))
    (first, _), *_ = cells.items()
    cells[first] -= 1
    cells["nowhere\t" + first.split("\t", 1)[1]] += 1
    say(n=given.count, at=time.time())
    say(durable=time.time())
    dump(given.dump, cells)


main()
