"""Makes the load of the benchmarks: Avro ratings like a district's, seeded, and puts them into Kafka.

27 departments, 405 items of theirs, 6 channels, 5 levels, 250 days (DESIGN §2.5). Levels follow
``WEIGHTS``: most ratings are good, four in a hundred are bad. Numbers decide nothing but the load.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from schemas import codesets, columns_out
from schemas.envelope import CONTENT_TYPE, Headers
from schemas.errors import Retryable
from schemas.topics import Topic

ITEMS, CHANNELS, DAYS = 405, 6, 250
WEIGHTS = {5: 0.80, 4: 0.10, 3: 0.06, 2: 0.02, 1: 0.02}
START_MS = 1_577_808_000_000  # 2020-01-01T00:00+08:00
DAY_MS = 86_400_000
SECTION = 50_000
Message = tuple[bytes, bytes, Headers]
"""Key, framed value, CloudEvents headers."""
TAGS = {5: "517", 4: "413", 3: "314", 2: "214", 1: "115"}


def ratings(count: int, seed: int = 1, first: int = 0, days: int = DAYS) -> Iterator[pl.DataFrame]:
    """``count`` first ratings in frames of at most ``SECTION``, each of another case (numbered from ``first``), with
    all fields of the contract, spread over ``days`` days (live ones are all of today).
    """
    chance = random.Random(seed)
    for start in range(0, count, SECTION):
        yield _section(chance, first + start, min(SECTION, count - start), days)


def _section(chance: random.Random, first: int, size: int, span: int) -> pl.DataFrame:
    departments = list(codesets.departments().values())
    items = [chance.randrange(ITEMS) for _ in range(size)]
    owners = [departments[i % len(departments)] for i in items]
    days = [chance.randrange(span) for _ in range(size)]
    levels = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=size)
    at = [START_MS + d * DAY_MS + chance.randrange(9 * 3_600_000, 17 * 3_600_000) for d in days]
    return pl.DataFrame(
        {
            "event_type": ["rating.given"] * size,
            "region": ["430903"] * size,
            "department": [o.code for o in owners],
            "occurred_at": at,
            "received_at": [a + 1000 for a in at],
            "case_no": [f"430903-2020-{first + i:08d}" for i in range(size)],
            "service_no": [1] * size,
            "assess_no": [1] * size,
            "revision": [0] * size,
            "operation": ["I"] * size,
            "item_code": [f"{o.uscc}4000{100000 + i:06d}00" for o, i in zip(owners, items, strict=True)],
            "satisfaction_set": ["platform.satisfaction"] * size,
            "satisfaction_code": [str(level) for level in levels],
            "channel_set": ["platform.channel"] * size,
            "channel_code": [str(chance.randrange(CHANNELS) + 1) for _ in range(size)],
            "tag_set": ["platform.eval-detail"] * size,
            "tags": [[TAGS[level]] if chance.random() < 0.3 else [] for level in levels],
            "rater_name": [chance.choice(("王小明", "李四", "欧阳小明", "")) for _ in range(size)],
        },
        schema_overrides={"tags": pl.List(pl.String)},
    )


def messages(topic: Topic, records: pl.DataFrame) -> Iterator[Message]:
    """Key, framed value and CloudEvents headers of every record."""
    written = columns_out.write(topic, records)
    time = records.select(t=pl.from_epoch("occurred_at", time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))["t"]
    sources = records.select(s=pl.format("/{}/{}", "region", "department"))["s"]
    columns = (written.event_id, written.value, sources, records["event_type"], time, records[topic.key])
    for event_id, value, source, event_type, moment, key in zip(*(c.to_list() for c in columns), strict=True):
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event_id.encode()),
            ("ce_source", source.encode()),
            ("ce_type", f"cn.govbus.{event_type}.v1".encode()),
            ("ce_time", moment.encode()),
            ("ce_subject", key.encode()),
            ("content-type", CONTENT_TYPE),
        ]
        yield key.encode(), bytes.fromhex(value), headers


def fill(bootstrap: str, topic: Topic, count: int, seed: int = 1) -> Iterator[int]:
    """Put ``count`` ratings into ``topic``; yields how many are in. Raises ``Retryable`` if the broker refused any."""
    return pour(bootstrap, topic, (m for section in ratings(count, seed) for m in messages(topic, section)))


def pour(bootstrap: str, topic: Topic, load: Iterable[Message]) -> Iterator[int]:
    """Put ``load`` into ``topic``; yields how many are in, section by section. Raises ``Retryable`` if the broker
    refused any.
    """
    sender, failed = producer(bootstrap), list[str]()

    def told(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(str(error.code()))

    done, left = 0, iter(load)
    while section := list(itertools.islice(left, SECTION)):
        for key, value, headers in section:
            sender.produce(topic.name, value, key, headers=headers, on_delivery=told)
            sender.poll(0)
        if sender.flush(120) or failed:
            raise Retryable(f"the broker did not take {len(failed) or 'all'} records of the load")
        done += len(section)
        yield done


def producer(bootstrap: str, linger_ms: int = 20) -> Any:
    """An idempotent producer that puts a key where the relay would."""
    from confluent_kafka import Producer

    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "queue.buffering.max.messages": 2 * SECTION,
            "compression.type": "none",
            "partitioner": "murmur2_random",
            "log_level": 3,
        }
    )
