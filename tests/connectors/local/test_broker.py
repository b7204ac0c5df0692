"""Kafka nodes of our own that are killed, crowded out and found again; and Kafka's own tools from the
same jars.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from connectors.local import jars
from connectors.local.broker import Cluster, java, serves
from connectors.local.process import wait_until
from schemas.errors import Retryable

TOPIC = "broker.test"


@pytest.fixture(scope="module")
def own(stack_directory: Path) -> Iterator[tuple[Cluster, list[str]]]:
    said: list[str] = []
    with Cluster(stack_directory / "own-kafka", tied=True, say=said.append) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        admin.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.close()
        yield cluster, said


def _send(bootstrap: str, *values: bytes, acks: int | str = "all", topic: str = TOPIC) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks)
    for value in values:
        producer.send(topic, value).get(20)
    producer.close()


def _read(bootstrap: str, topic: str = TOPIC) -> list[bytes]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, consumer_timeout_ms=20_000, auto_offset_reset="earliest"
    )
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    end = consumer.end_offsets([place])[place]
    found: list[bytes] = []
    while len(found) < end:
        found.append(next(consumer).value)
    consumer.close()
    return found


def test_acknowledged_records_survive_kill_minus_nine(own: tuple[Cluster, list[str]]) -> None:
    cluster, _ = own
    _send(cluster.bootstrap, b"one", b"two")
    cluster.nodes[0].kill()
    assert not cluster.running()
    assert not serves(cluster.bootstrap)
    cluster.start()
    assert _read(cluster.bootstrap)[-2:] == [b"one", b"two"]


def test_the_libraries_of_killed_brokers_do_not_pile_up(own: tuple[Cluster, list[str]]) -> None:
    cluster, _ = own
    unpacked = cluster.nodes[0].directory / "tmp"
    for _ in range(2):
        cluster.start()
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "compression.type": "lz4"})
        producer.produce(TOPIC, b"squeezed" * 1_000)  # the broker unpacks it, and before that its own library
        assert producer.flush(20) == 0
        assert len(list(unpacked.glob("*lz4*.so"))) == 1
        cluster.nodes[0].kill()
    cluster.start()


def test_nobody_else_on_the_machine_can_read_what_the_log_holds(own: tuple[Cluster, list[str]]) -> None:
    cluster, _ = own
    cluster.start()
    assert [stat.S_IMODE(node.directory.stat().st_mode) for node in cluster.nodes] == [0o700]


def test_a_broker_port_taken_meanwhile_is_left_alone_and_said(own: tuple[Cluster, list[str]]) -> None:
    cluster, said = own
    _send(cluster.bootstrap, b"before the move")
    port = cluster.nodes[0].port
    cluster.stop()
    with socket.create_server(("127.0.0.1", port)):
        cluster.start()
    assert cluster.nodes[0].port != port
    assert said == [f"Kafka node 1: port {port} is in use, taking {cluster.nodes[0].port}"]
    assert b"before the move" in _read(cluster.bootstrap)


def test_starting_a_running_broker_changes_nothing_even_without_its_state_file(
    own: tuple[Cluster, list[str]],
) -> None:
    cluster, _ = own
    node = cluster.nodes[0]
    before, port = node.pid, node.port
    cluster.start()
    assert node.pid == before
    (node.directory / "state.json").unlink()
    cluster.start()
    assert (node.pid, node.port) == (before, port)


def test_a_broker_that_does_not_serve_yet_is_told_with_what_it_wrote_last(own: tuple[Cluster, list[str]]) -> None:
    cluster, _ = own
    node = cluster.nodes[0]
    pid = node.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)  # as if it were reading its logs
    try:
        with pytest.raises(Retryable, match="Kafka runs and does not serve after 1 s") as told:
            cluster.start(1)
        assert node.complaint() in str(told.value)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.start()
    assert node.pid == pid


def test_a_broker_whose_directory_was_deleted_is_ended_and_a_new_one_begins_empty(
    own: tuple[Cluster, list[str]],
) -> None:
    cluster, said = own
    orphan = cluster.nodes[0].identity
    assert orphan
    shutil.rmtree(cluster.directory)
    cluster.adopt()
    assert not orphan.alive()  # at once: some seconds later Kafka would have given up by itself
    cluster.start()
    assert f"Kafka node 1 ({orphan.pid}) still runs though its data was deleted: ending it" in said
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    assert TOPIC not in admin.list_topics()
    admin.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()


def test_the_broker_listens_on_loopback_alone(own: tuple[Cluster, list[str]]) -> None:
    process = psutil.Process(own[0].nodes[0].pid)
    listening = {
        c.laddr.ip.removeprefix("::ffff:") for c in process.net_connections("tcp") if c.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}


def test_a_topic_nobody_made_is_not_made_by_asking_for_it(own: tuple[Cluster, list[str]]) -> None:
    cluster, _ = own
    consumer = KafkaConsumer("never.made", bootstrap_servers=cluster.bootstrap, consumer_timeout_ms=1000)
    assert list(consumer) == []
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    assert "never.made" not in admin.list_topics()
    admin.close()


def test_kafkas_own_console_consumer_runs_from_the_locked_jars(
    own: tuple[Cluster, list[str]], tmp_path: Path
) -> None:
    cluster, _ = own
    _send(cluster.bootstrap, b"for the console")
    tool = ("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap)
    everything = str(len(_read(cluster.bootstrap)))
    options = ("--topic", TOPIC, "--from-beginning", "--max-messages", everything, "--timeout-ms", "30000")
    command = java(jars.classpath(), *tool, *options, logs=tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "for the console" in done.stdout.splitlines(), done.stderr


def test_three_nodes_keep_acknowledged_records_when_one_is_killed(stack_directory: Path) -> None:
    with Cluster(stack_directory / "three", 3, tied=True) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 3}}, wait_for_metadata=True)
        assert wait_until(lambda: admin.describe_topics(["kept"])[0]["partitions"], 30, every=0.2)  # all nodes know it
        leader = admin.describe_topics(["kept"])[0]["partitions"][0]["leader_id"]
        admin.close()
        _send(cluster.bootstrap, b"before", topic="kept")
        victim = cluster.nodes[leader - 1]
        victim.kill()
        _send(cluster.bootstrap, b"meanwhile", topic="kept")
        assert _read(cluster.bootstrap, "kept") == [b"before", b"meanwhile"]
        cluster.start_node(victim)
        assert wait_until(lambda: serves(cluster.bootstrap, 3), 90, every=0.2)
