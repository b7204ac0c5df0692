"""Whatever a publisher accepts, no processor, consumer or desk ends of it: rows that are valid by contract and rules,
and make no sense.

Rows are the contracts' examples with some fields drawn anew by their types and code sets, about a few keys, so that
they meet each other. A failing example is named by its seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kafka.partitioner.default import murmur2

from connectors.province.push import Queue
from connectors.publisher import Publisher
from consumers.alerts.inbox import Inbox
from consumers.directory.view import View
from schemas import codesets, contracts
from schemas.topics import HANDLING, INBOUND, Topic
from streams.agents import projections
from streams.store.applier import apply_batch, tick
from streams.store.desk import DeskReader
from streams.store.follow import FollowProjection
from streams.store.projection import Carried
from streams.store.steps import decode_rows

pytestmark = pytest.mark.stack
EXAMPLES = Path(contracts.__file__).parent / "examples"
DEPARTMENT, REGION = "HS-XZSPJ", "430903"
SENT_BY_THE_BUS = ("event_id", "department", "received_at", "occurred_text")
FIRST, DAY = 1_600_000_000_000, 86_400_000
ROWS, CHUNK, KEYS, ACTS = 400, 37, 4, 60
POSITIVE = 0x7FFFFFFF


@cache
def examples(topic: Topic) -> list[dict[str, Any]]:
    found = [json.loads(p.read_text("utf-8")) for p in sorted((EXAMPLES / topic.name).glob("*.json"))]
    return [{k: v for k, v in row.items() if k not in SENT_BY_THE_BUS} for row in found]


def drawn_row(rng: random.Random, topic: Topic, number: int) -> dict[str, Any]:
    """An example with some of its fields, or of those that it leaves out, drawn anew; its key is one of a few."""
    specs = contracts.field_specs(topic)
    row = dict(rng.choice(examples(topic)))
    row["event_type"] = rng.choice(contracts.event_types(topic))
    row["occurred_at"] = FIRST + number * DAY // 20 - rng.choice((0, 0, 0, rng.randrange(200 * DAY)))
    row["region"] = REGION
    for name in rng.sample(sorted(specs.keys() - {*SENT_BY_THE_BUS, "event_type", "region"}), rng.choice((0, 1, 3, 8))):
        row[name] = drawn(rng, specs[name], specs[name]["type"], row)
    if topic.key in specs and isinstance(row.get(topic.key), str) and topic.key not in ("event_id", "item_code"):
        row[topic.key] = rng.choice([e[topic.key] for e in examples(topic)][:KEYS])
    return row


def drawn(rng: random.Random, spec: Mapping[str, Any], kind: Any, row: Mapping[str, Any]) -> Any:
    """A value that the contract's type allows; odd ones more often than departments would send them."""
    if isinstance(kind, list):
        return None if rng.random() < 0.2 else drawn(rng, spec, next(k for k in kind if k != "null"), row)
    if isinstance(kind, str):
        return _primitive(rng, spec, kind, row)
    match kind.get("logicalType") or kind["type"]:
        case "timestamp-millis":
            return FIRST + rng.choice((-1, 1)) * rng.choice((0, 1, 59_999, DAY, 400 * DAY, 6_000 * DAY))
        case "date":
            return rng.choice(("2019-02-28", "2020-02-29", "2020-09-14", "2027-01-01", "9999-12-31", "1990-01-01"))
        case "array":
            return [drawn(rng, spec, kind["items"], row) for _ in range(rng.choice((0, 1, 2, 5)))]
        case "record":
            return {f["name"]: drawn(rng, f, f["type"], row) for f in kind["fields"]}
        case "enum":
            return rng.choice(kind["symbols"])
    return drawn(rng, spec, kind["type"], row)


def _primitive(rng: random.Random, spec: Mapping[str, Any], kind: str, row: Mapping[str, Any]) -> Any:
    if kind in ("int", "long"):
        return rng.choice((0, 1, 2, 3, 5, -1, 540, 1020, 1440, 2_020, 2**31 - 1, -(2**31)))
    if kind in ("double", "float"):
        return rng.choice((0.0, 0.5, 1.0, 5.0, 1e-9, -3.0, 9_999.5, 1e300))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "bytes":
        return rng.randbytes(rng.choice((0, 32)))
    return _text(rng, spec, row)


def _text(rng: random.Random, spec: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    name = str(spec.get("name", ""))
    if set_id := spec.get("codeset"):
        return rng.choice(["", *codesets.load(set_id).values])
    if name.endswith("_set"):
        sets: Iterable[str] = spec.get("codesets") or codesets.ids()
        return rng.choice(["", *sets])
    if name.endswith("_code") and (set_id := row.get(f"{name.removesuffix('_code')}_set")):
        return rng.choice(["", *codesets.load(set_id).values])
    return rng.choice(("", "x", "事项", "<b>'\"%s{}\\", "0", "HS-ZJJ", "é" * 300, str(row.get(name, ""))))


def published(engine: sa.Engine, seed: int) -> Counter[str]:
    """Publish rows of all topics in one order; how many of each topic were accepted."""
    rng, now = random.Random(seed), [FIRST]
    publisher = Publisher(engine, DEPARTMENT, REGION, lambda: now[0])
    accepted: Counter[str] = Counter()
    for number in range(ROWS):
        topic = rng.choice(INBOUND)
        now[0] = FIRST + number * DAY // 20
        (result,) = publisher.publish(topic, [drawn_row(rng, topic, number)])
        accepted[topic.name] += result.accepted
    return accepted


def acted(engine: sa.Engine, rng: random.Random) -> None:
    """Publish acts of all kinds about the alerts that the desk knows."""
    publisher = Publisher(engine, DEPARTMENT, REGION, lambda: FIRST + 3_000 * DAY)
    with engine.connect() as tx:
        known = tx.execute(sa.text("SELECT alert_id::text, case_no, issued_at FROM alert_inbox ORDER BY 1")).all()
    rows = []
    for number in range(ACTS):
        alert = rng.choice(known)
        row = drawn_row(rng, HANDLING, number) | {"alert_id": alert.alert_id, "case_no": alert.case_no}
        rows.append(row | {"occurred_at": alert.issued_at + rng.randrange(-DAY, 40 * DAY)})
    assert sum(r.accepted for r in publisher.publish(HANDLING, rows)) > ACTS // 4


def logs(engine: sa.Engine, topics: Sequence[Topic] = INBOUND) -> dict[Topic, list[Carried]]:
    """What Kafka would carry of the outbox."""
    found: dict[Topic, list[Carried]] = {topic: [] for topic in topics}
    ends: dict[tuple[str, int], int] = defaultdict(int)
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE outbox SET sent_at = queued_at"))
        for topic in topics:
            sql = "SELECT key, value, headers FROM outbox WHERE topic = :t ORDER BY seq"
            for key, value, headers in tx.execute(sa.text(sql), {"t": topic.name}):
                partition = int(murmur2(key.encode()) & POSITIVE) % topic.partitions
                told = tuple((str(h), str(v).encode()) for h, v in headers)
                found[topic].append(
                    Carried(topic, partition, ends[topic.name, partition], key.encode(), bytes(value), told)
                )
                ends[topic.name, partition] += 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_nothing_ends_of_a_row_that_was_accepted(engine: sa.Engine, seed: int) -> None:
    accepted = published(engine, seed)
    assert all(accepted[topic.name] > 3 for topic in INBOUND), accepted
    rng, told = random.Random(seed), logs(engine)
    for projection in projections():
        _process(engine, projection, told[projection.topic], rng)
    for effect in (Inbox(lambda: 0), View(), Queue()):
        _take(engine, effect)
    acted(engine, rng)
    _process(engine, FollowProjection(), logs(engine, (HANDLING,))[HANDLING], rng)
    _look(engine)
    _take(engine, Inbox(lambda: 0))
    with engine.connect() as tx:
        dead = tx.execute(sa.text("SELECT topic, reason, field, text FROM dead_letter WHERE origin = 'STREAM'")).all()
        lives = tx.execute(sa.text("SELECT count(*) FROM alert_life")).scalar_one()
    assert dead == []
    assert lives


def _process(engine: sa.Engine, projection: Any, carried: Sequence[Carried], rng: random.Random) -> None:
    moment = FIRST
    for start in range(0, len(carried), CHUNK):
        apply_batch(engine, projection, carried[start : start + CHUNK])
        moment += rng.randrange(3 * DAY)
        _act(engine, projection, moment)
    _act(engine, projection, FIRST + 4_000 * DAY)


def _act(engine: sa.Engine, projection: Any, horizon: int) -> None:
    if not hasattr(projection, "tick"):
        return
    for partition in range(projection.topic.partitions):
        while tick(engine, projection, partition, horizon):
            pass


def _take(engine: sa.Engine, effect: Any) -> None:
    """Let a consumer make its effect of everything that was said on its topics."""
    for carried in logs(engine, effect.topics).values():
        events, refused = decode_rows(carried)
        assert refused == []
        with engine.begin() as tx:
            effect.apply(tx, events)


def _look(engine: sa.Engine) -> None:
    desk = DeskReader()
    for partition in range(HANDLING.partitions):
        more = True
        while more:
            with engine.begin() as tx:
                more = desk.tick(tx, partition, FIRST + 4_000 * DAY)
