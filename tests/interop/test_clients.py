"""Clients that know nothing of govbus read every topic: Confluent's Avro deserializer, Kafka's console
consumer, kcat.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from connectors.local import jars
from connectors.local.broker import java
from schemas import examples
from schemas.codec import decode, encode
from schemas.contracts import contract
from schemas.envelope import Headers, headers
from schemas.topics import BY_NAME, TOPICS, Topic

pytestmark = pytest.mark.stack
topics = pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
SECONDS = 180


@dataclass(frozen=True, slots=True)
class Sent:
    """One example as it was written to Kafka."""

    record: dict[str, Any]
    key: str
    headers: Headers
    value: bytes


def as_sent(topic: Topic, record: dict[str, Any]) -> Sent:
    full = decode(encode(topic, record), topic)
    return Sent(full, str(full[topic.key]), headers(topic, full), encode(topic, full))


@pytest.fixture(scope="module")
def sent(shared_bus: Any) -> dict[str, dict[str, Sent]]:
    """All examples of all topics in Kafka: topic name to event id to what was sent."""
    producer = Producer({"bootstrap.servers": shared_bus.kafka, "enable.idempotence": True})
    written = {t.name: [as_sent(t, r) for r in examples.load(t).values()] for t in TOPICS}
    for name, records in written.items():
        for s in records:
            producer.produce(name, key=s.key, value=s.value, headers=s.headers)
    assert producer.flush(SECONDS) == 0
    return {name: {s.record["event_id"]: s for s in records} for name, records in written.items()}


@pytest.fixture(scope="module")
def registry() -> SchemaRegistryClient:
    """Confluent's in-process registry, filled from our contracts; it numbers schemas in order, so what we number beyond
    that is registered until its number comes.
    """
    client = SchemaRegistryClient.new_client({"url": "mock://govbus"})
    wanted = {t.schema_id: t for t in TOPICS}
    for number in range(1, max(wanted) + 1):
        filler = json.dumps({"type": "fixed", "name": f"unused{number}", "size": number})
        topic = wanted.get(number)
        subject, text = (topic.subject, json.dumps(contract(topic))) if topic else ("unused", filler)
        assert client.register_schema(subject, Schema(text, "AVRO")) == number
    return client


def consumed(bootstrap: str, topic: Topic, count: int) -> Iterator[Any]:
    """The first ``count`` messages of a topic."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "interop", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
    )
    consumer.assign([TopicPartition(topic.name, p, OFFSET_BEGINNING) for p in range(topic.partitions)])
    try:
        for _ in range(count):
            message = consumer.poll(SECONDS)
            assert message is not None, "fewer messages than were sent"
            assert message.error() is None
            yield message
    finally:
        consumer.close()


def in_milliseconds(value: Any) -> Any:
    """Confluent's datetimes as the epoch milliseconds that govbus holds; everything else as it is."""
    if isinstance(value, datetime.datetime):
        return (value - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
            milliseconds=1
        )
    if isinstance(value, dict):
        return {k: in_milliseconds(v) for k, v in value.items()}
    return [in_milliseconds(v) for v in value] if isinstance(value, list) else value


@topics
def test_confluents_deserializer_reads_every_value_as_it_was_meant(
    topic: Topic, shared_bus: Any, sent: dict[str, dict[str, Sent]], registry: SchemaRegistryClient
) -> None:
    deserialize = AvroDeserializer(registry)
    expected = sent[topic.name]

    read = {}
    for message in consumed(shared_bus.kafka, topic, len(expected)):
        record: Any = deserialize(message.value(), SerializationContext(topic.name, MessageField.VALUE))
        read[record["event_id"]] = in_milliseconds(record)
        assert message.key().decode() == expected[record["event_id"]].key
        assert message.headers() == expected[record["event_id"]].headers

    assert read == {event_id: s.record for event_id, s in expected.items()}


def run(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode().splitlines()


def told_headers(text: str, between: str) -> dict[str, str]:
    """Headers as a tool prints them, ``name:value,…`` or ``name=value,…``."""
    return dict(pair.split(between, 1) for pair in text.split(","))


def test_kafkas_console_consumer_shows_keys_headers_and_framing_of_every_topic(
    shared_bus: Any, sent: dict[str, dict[str, Sent]], tmp_path: Path
) -> None:
    expected = {i: (s, name) for name, records in sent.items() for i, s in records.items()}
    shown = ["print.key=true", "print.headers=true", "print.value=true", "key.separator=\t"]
    shown += ["headers.separator=,"]
    shown += ["value.deserializer=org.apache.kafka.common.serialization.BytesDeserializer"]
    lines = run(java(
        jars.classpath(), "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", shared_bus.kafka,
        "--include", "|".join(t.name for t in TOPICS), "--from-beginning", "--timeout-ms", "90000",
        "--max-messages", str(len(expected)),
        *(part for p in shown for part in ("--formatter-property", p)), logs=tmp_path,
    ))  # fmt: skip

    seen = set()
    for line in lines:
        told, key, value = line.split("\t", 2)
        said = told_headers(told, ":")
        one, name = expected[said["ce_id"]]
        seen.add(said["ce_id"])
        assert said == {name: text.decode() for name, text in one.headers}
        assert key == one.key
        framed = (0, *BY_NAME[name].schema_id.to_bytes(4, "big"))
        assert value.startswith("".join(f"\\x{byte:02X}" for byte in framed))
    assert seen == set(expected)


def kcat() -> str:
    found = shutil.which("kcat") or shutil.which(str(Path(sys.prefix) / "kcat" / "bin" / "kcat"))
    assert found, "kcat is missing: make kcat"
    return found


@topics
def test_kcat_shows_keys_headers_and_framing(
    topic: Topic, shared_bus: Any, sent: dict[str, dict[str, Sent]]
) -> None:
    expected = sent[topic.name]
    read = [kcat(), "-C", "-b", shared_bus.kafka, "-t", topic.name, "-o", "beginning", "-e", "-q"]
    read += ["-X", "fetch.wait.max.ms=20"]

    lines = run([*read, "-f", "%h\t%k\t%S\n"])
    framing = run([*read, "-s", "value=>b I", "-f", "%s\n"])

    seen = {}
    for line in lines:
        told, key, size = line.split("\t")
        said = told_headers(told, "=")
        one = expected[said["ce_id"]]
        seen[said["ce_id"]] = (key, int(size))
        assert said == {name: text.decode() for name, text in one.headers}
    assert seen == {event_id: (s.key, len(s.value)) for event_id, s in expected.items()}
    assert framing == [f"0 {topic.schema_id}"] * len(expected)
