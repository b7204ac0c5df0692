"""A small bus of ratings: publish, carry, apply and upload by the product's own steps, without agents."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer

from connectors.relay import Relay, Sender
from consumers.loop import carried, partitions, reader
from schemas import envelope
from schemas.errors import Fault
from schemas.topics import RATING, UPLOAD, Topic
from streams.store import bulk, outbox, steps, tables
from streams.store.projection import Carried, Event, Refused, Said

AT = 1_602_228_000_000  # 2020-10-09 15:20:00 Asia/Shanghai, epoch ms
RULE_FAILED = Fault("rule_failed", "", "a rule of this release cannot take it")


def rating(case_no: str, score: str = "5", **changes: Any) -> dict[str, Any]:
    """A rating of the district, given at AT; without event id."""
    return {
        "event_type": "rating.given", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": AT,
        "occurred_text": "", "entered_at": None, "received_at": AT + 350, "case_no": case_no,
        "item_code": "11430903MBDEM0138T4000715002000", "satisfaction_set": "platform.satisfaction",
        "satisfaction_code": score, "channel_set": "platform.channel", "channel_code": "4",
        "service_no": 1, "assess_no": 1, "revision": 0, "operation": "I", "tag_set": "", "tags": [],
        "comment": "", "rater_name": "", "anonymous": True, "is_default": False, "window_name": "", **changes,
    }  # fmt: skip


def upload(source: Event) -> dict[str, Any]:
    """The upload of a rating event; without event id."""
    r = source.record
    told = {
        **{name: r[name] for name in ("region", "department", "occurred_at", "received_at", "revision")},
        **{name: r[name] for name in ("operation", "satisfaction_set", "satisfaction_code")},
    }
    return {
        **told, "event_type": "rating.uploaded", "occurred_text": "", "entered_at": None,
        "rating_id": str(envelope.derived_id("rating", r["case_no"])), "service_number": 1,
        "source_event_id": str(source.event_id), "project_no": r["case_no"], "assess_number": r["assess_no"],
        "pf_set": "platform.channel", "pf_code": "4", "eval_detail": "", "writing_evaluation": "",
        "assess_time": r["occurred_at"], "area_code": r["region"], "dept_code": "11430903MBDEM0138T",
        "task_code": r["item_code"], "is_default": False, "effective": True, "user_name": "",
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One bus and the steps of its line; every step is done when the call returns."""

    engine: sa.Engine
    kafka: str
    carrier: Relay

    def publish(self, topic: Topic, records: Sequence[Mapping[str, Any]]) -> list[outbox.Enqueued]:
        """Into the outbox."""
        with self.engine.begin() as tx:
            return outbox.enqueue(tx, [outbox.row(topic, r) for r in records])

    def relay(self) -> None:
        """Everything that is unsent, to Kafka, by one turn after another of the relay's own loop."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while self.carrier._forward(bulk.driver(connection), threading.Event()):
                continue

    def carried(self, topic: Topic) -> list[Carried]:
        """What Kafka holds of ``topic``."""
        consumer = reader(self.kafka)
        try:
            places = partitions(consumer, [topic])
            consumer.assign(places)
            starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, starts[place])
            found: list[Carried] = []
            while any(consumer.position(p) < ends[p] for p in places):
                found += [carried(m) for ms in consumer.poll(timeout_ms=500).values() for m in ms]
            return found
        finally:
            consumer.close(autocommit=False)

    def apply(self, refusing: bytes = b"") -> None:
        """Every carried rating: applied and uploaded, or dead-lettered, as are those of the key ``refusing``; then
        relayed.
        """
        events, refused = steps.decode_rows(self.carried(RATING))
        refused += [Refused(e.carried, RULE_FAILED, e) for e in events if e.carried.key == refusing]
        events = [e for e in events if e.carried.key != refusing]
        with self.engine.begin() as tx:
            new = steps.keep_new(tx, tables.rating_event, events, _columns)
            steps.bury(tx, refused)
            steps.say(tx, [Said(UPLOAD, upload(e)) for e in new])
        self.relay()

    def send_raw(
        self, topic: Topic, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """A record past the outbox."""
        producer = Producer({"bootstrap.servers": self.kafka})
        producer.produce(topic.name, key=key, value=value, headers=list(headers))
        assert producer.flush(10) == 0

    def scalar(self, query: sa.Select[Any] | str) -> Any:
        """One value from the database."""
        with self.engine.connect() as tx:
            return tx.execute(sa.text(query) if isinstance(query, str) else query).scalar_one()

    def run(self, statement: str, **values: Any) -> int:
        """Change the database behind everybody's back; how many rows it met."""
        with self.engine.begin() as tx:
            return tx.execute(sa.text(statement), values).rowcount


def _columns(event: Event) -> dict[str, Any]:
    r = event.record
    return {
        "case_no": r["case_no"], "service_no": 1, "assess_no": r["assess_no"], "revision": r["revision"],
        "operation": r["operation"], "item_code": r["item_code"], "channel": "TABLET",
        "score": int(r["satisfaction_code"]), "is_default": False,
    }  # fmt: skip


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    """Return when ``true()``; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def bus(shared_bus: Any) -> Any:
    """Nothing here harms a broker."""
    return shared_bus


@pytest.fixture(scope="module")
def sender(bus: Any) -> Iterator[Sender]:
    """One producer for all relays of the module: a new one takes half a second to begin."""
    made = Sender(bus.kafka)
    yield made
    made.close()


@pytest.fixture
def line(bus: Any, postgres: Any, sender: Sender, emptied: Callable[[str], None]) -> Iterator[Line]:
    """An empty line: a fresh database, and Kafka emptied of what earlier tests of this module left."""
    from connectors import topics_admin
    from streams.store.engine import connect

    emptied(bus.kafka)
    topics_admin.apply(bus.kafka, replication=1)  # a compacted topic that held something is gone
    name = f"line_{time.monotonic_ns()}"
    engine = connect(postgres.create(name, template="govbus_template"))
    relay = Relay(engine, bus.kafka)
    relay._sender = sender
    yield Line(engine, bus.kafka, relay)
    engine.dispose()
    postgres.drop(name)


@pytest.fixture
def make_rating() -> Callable[..., dict[str, Any]]:
    """A rating by case number, score and changed fields."""
    return rating


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for something to become true."""
    return until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A province's home."""
    return tmp_path / "province"
