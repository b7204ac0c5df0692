"""Whether Kafka still holds what it acknowledged, seen by where its partitions end.

A log that ends before a record we know it held has lost acknowledged records: the power of a single broker was
cut, or a topic was deleted and made again. What lands there next would lie below the cursors and be taken for
known. Decides only whether that is so; waiting is the relay's, mending ``govbus resend``'s. Records lost from the
middle of a log are not seen here; ``govbus reconcile`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas import access

Place = tuple[str, int]
TAIL_ROWS = 20_000
"""So many of the newest rows of the outbox are looked at; what is older has surely been applied by somebody."""
ANSWER_S = 5.0
GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)
_FLOORS = """
SELECT topic, partition, max(floor) FROM (
  SELECT topic, partition, next_offset AS floor FROM cursor WHERE next_offset > 0
  UNION ALL
  SELECT topic, sent_partition, sent_offset + 1 FROM (SELECT * FROM outbox ORDER BY seq DESC LIMIT %s) AS tail
  WHERE sent_offset IS NOT NULL) AS known GROUP BY topic, partition"""


def floors(raw: Any) -> dict[Place, int]:
    """By partition, the offset before which the log must not end: what was applied, and what was sent last.

    ``raw`` is a psycopg connection.
    """
    return {(topic, partition): floor for topic, partition, floor in raw.execute(_FLOORS, (TAIL_ROWS,)).fetchall()}


def ends(bootstrap: str, places: Iterable[Place]) -> dict[Place, int]:
    """The end of each partition, asked of the broker now; 0 for one that is not there.

    Raises ``KafkaException`` if Kafka does not answer.
    """
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
    if not asked:
        return {}
    admin = AdminClient(
        {"bootstrap.servers": bootstrap, "client.id": "govbus-intact", "log_level": 0, **access.current().confluent()}
    )
    answers = admin.list_offsets(asked, request_timeout=ANSWER_S)
    return {(tp.topic, tp.partition): _end(answer) for tp, answer in answers.items()}


def behind(known: Mapping[Place, int], found: Mapping[Place, int]) -> dict[Place, tuple[int, int]]:
    """The partitions that end before ``known``: (end, where it must have been at least)."""
    return {place: (found.get(place, 0), floor) for place, floor in known.items() if found.get(place, 0) < floor}


def _end(answer: Any) -> int:
    try:
        return int(answer.result().offset)
    except KafkaException as error:
        if error.args[0].code() in GONE:
            return 0
        raise
