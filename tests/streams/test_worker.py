"""The worker process on real Kafka and PostgreSQL: what is in the log is in SQL, once, whoever dies
meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer
from kafka import KafkaProducer

from consumers.loop import partitions, reader
from schemas import envelope
from schemas.topics import LICENCE, TICKET, Topic
from streams.rules import mask
from streams.store import outbox
from streams.store.tables import cursor, dead_letter, licence, ticket_event

START = 1_600_000_000_000


def ticket(number: int) -> dict[str, Any]:
    """A hotline ticket; each has a key of its own, so that they spread over the partitions."""
    return {
        "event_type": "ticket.opened", "region": "430903", "department": "HS-QZRXB", "occurred_at": START +
        number, "occurred_text": "", "entered_at": None, "received_at": START + number + 5, "ticket_no":
        f"T{number}", "event_no": 1, }  # fmt: skip


def produce(bootstrap: str, topic: Topic, records: list[dict[str, Any]]) -> None:
    """Put records on the topic the way the relay does."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 20})
    for record in records:
        row = outbox.row(topic, record)
        headers = envelope.headers(topic, row.record)
        producer.produce(topic.name, row.value, key=str(record[topic.key]).encode(), headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


@contextmanager
def workers(bus: Any, count: int, home: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """``count`` worker processes; killed at the end."""
    running = [launch(bus, home / str(n)) for n in range(count)]
    try:
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def launch(bus: Any, home: Path, program: tuple[str, str] = ("-m", "streams")) -> subprocess.Popen[bytes]:
    """One worker process, its log in ``home/log``."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *program, "--kafka", bus.kafka, "--database-url", bus.database_url]
    log = (home / "log").open("ab")
    return subprocess.Popen([*command, "--home", str(home), "--log-level", "INFO"], stdout=log, stderr=log)


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until ``true``; fails naming ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def store(bus: Any) -> Iterator[sa.Engine]:
    """An engine on the bus's database."""
    made = sa.create_engine(bus.database_url)
    yield made
    made.dispose()


def count(store: sa.Engine, table: sa.Table) -> int:
    """Rows of a table."""
    with store.connect() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.mark.stack
def test_events_and_poison_reach_sql_once_though_workers_are_killed(
    bus: Any, store: sa.Engine, tmp_path: Path
) -> None:
    total = 20_000
    produce(bus.kafka, TICKET, [ticket(n) for n in range(total // 2)])
    poison = Producer({"bootstrap.servers": bus.kafka})
    poison.produce(TICKET.name, b"\x00\x00\x00\x00\x08\xff\xff", key=b"T1", partition=3)
    poison.flush(10)
    with workers(bus, 2, tmp_path) as running:
        wait_until(lambda: count(store, ticket_event) > 0, 180, "the first events")
        running[0].send_signal(signal.SIGKILL)
        produce(bus.kafka, TICKET, [ticket(n) for n in range(total // 4, total)])
        running.append(launch(bus, tmp_path / "next"))
        wait_until(lambda: count(store, ticket_event) == total, 180, "every event")
        in_log = total // 2 + 1 + total - total // 4
        wait_until(lambda: reached(store, TICKET) == in_log, 180, "the cursors at the end of the log")
        assert count(store, ticket_event) == total
        assert count(store, dead_letter) == 1
        assert running[1].poll() is None


def reached(store: sa.Engine, topic: Topic) -> int:
    """Sum of the cursors of a topic."""
    with store.connect() as tx:
        query = sa.select(sa.func.coalesce(sa.func.sum(cursor.c.next_offset), 0))
        return int(tx.execute(query.where(cursor.c.topic == topic.name)).scalar_one())


@pytest.mark.stack
def test_a_worker_told_to_stop_ends_with_zero_and_the_next_one_goes_on_where_it_stood(
    bus: Any, store: sa.Engine, tmp_path: Path
) -> None:
    record = {
        "event_type": "licence.issued", "region": "430903", "department": "HS-SCJGJ", "occurred_at": START,
        "occurred_text": "", "entered_at": None, "received_at": START + 5, "family": "T/I/N1",
        "licence_version": 1, "licence_id": "x", "type_code": "T", "issuer_code": "I", "licence_no": "N1",
        "status_set": "ministry.licence-status", "status_code": "01", "origin_code": "INCREMENT",
    }  # fmt: skip
    with workers(bus, 1, tmp_path) as running:
        produce(bus.kafka, LICENCE, [record])
        wait_until(lambda: count(store, licence) == 1, 180, "the licence")
        os.kill(running[0].pid, signal.SIGTERM)
        assert running[0].wait(60) == 0
    with workers(bus, 1, tmp_path):
        produce(bus.kafka, LICENCE, [{**record, "event_type": "licence.revoked", "status_code": "03"}])
        wait_until(lambda: statuses(store) == ["REVOKED"], 180, "the revocation")


@pytest.mark.stack
def test_a_worker_says_by_which_rules_it_masks(bus: Any, tmp_path: Path) -> None:
    with workers(bus, 1, tmp_path):
        wait_until(lambda: said(tmp_path / "0", mask.version()), 60, "the version")


HANGING = """
import asyncio, os, signal, sys, threading
import faust
from streams import worker

async def never(*_): await asyncio.Event().wait()

worker.STOP_S = 1.0
app = faust.App("t", broker="memory://", store="memory://", autodiscover=False, web_enabled=False, datadir=sys.argv[1])
made = worker.QuietWorker(app, quiet=True, redirect_stdouts=False)
made.stop = never
threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
made.execute_from_commandline()
"""


def test_a_worker_whose_client_does_not_end_ends_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "leaving" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.stack
def test_transactions_of_another_producer_leave_markers_behind_which_no_worker_stands(
    bus: Any, store: sa.Engine, tmp_path: Path
) -> None:
    """Committed or aborted: records are read as they lie in the log, and a marker is no record."""
    before = count(store, ticket_event)
    with workers(bus, 1, tmp_path) as running:
        producer = Producer({"bootstrap.servers": bus.kafka, "transactional.id": "another"})
        producer.init_transactions()
        for first, ended in ((300_000, producer.commit_transaction), (300_008, producer.abort_transaction)):
            producer.begin_transaction()
            for number in range(first, first + 8):
                row = outbox.row(TICKET, ticket(number))
                headers = envelope.headers(TICKET, row.record)
                producer.produce(TICKET.name, row.value, key=f"T{number}".encode(), headers=headers)
            assert producer.flush(30) == 0
            ended()
        wait_until(lambda: count(store, ticket_event) == before + 16, 180, "every event")
        wait_until(lambda: reached(store, TICKET) == ends(bus.kafka, TICKET), 60, "the cursors behind the markers")
        assert running[0].poll() is None


def ends(bootstrap: str, topic: Topic) -> int:
    """Sum of the ends of a topic's partitions."""
    consumer = reader(bootstrap)
    try:
        return sum(consumer.end_offsets(partitions(consumer, [topic])).values())
    finally:
        consumer.close()


class Gbk(str):
    """A text that a producer of another house encodes."""

    def encode(self, *_: Any) -> bytes:
        return str.encode(self, "gbk")


@pytest.mark.stack
def test_a_header_name_that_is_not_utf_8_ends_no_worker(bus: Any, store: sa.Engine, tmp_path: Path) -> None:
    before, dead, number = count(store, ticket_event), count(store, dead_letter), 400_000
    producer = KafkaProducer(bootstrap_servers=bus.kafka)
    row = outbox.row(TICKET, ticket(number))
    headers = [*envelope.headers(TICKET, row.record), (Gbk("部门"), b"x")]
    producer.send(TICKET.name, row.value, key=f"T{number}".encode(), headers=headers).get(30)
    producer.send(TICKET.name, b"torn", key=b"T1", headers=headers[-1:]).get(30)
    producer.close()
    produce(bus.kafka, TICKET, [ticket(number + n) for n in range(1, 40)])
    with workers(bus, 1, tmp_path) as running:
        wait_until(lambda: count(store, ticket_event) == before + 40, 180, "every event")
        wait_until(lambda: count(store, dead_letter) == dead + 1, 60, "the dead letter")
        assert running[0].poll() is None


FAILING = """
import runpy
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError

def fails_once(owner, name, at, error):
    real, calls = getattr(owner, name), []
    async def call(self, *args):
        calls.append(name)
        if len(calls) == at:
            print(name, "fails", flush=True)
            raise error
        return await real(self, *args)
    setattr(owner, name, call)

{0}
runpy.run_module("streams", run_name="__main__")
"""
"""The worker, with a call of its Kafka client that fails once."""

REFUSED = """
fails_once(GroupCoordinator, "_perform_assignment", 1, KafkaError("UnknownServerError"))
fails_once(GroupCoordinator, "_do_heartbeat", 6, KafkaError("UnknownServerError"))
"""
UNABLE = 'fails_once(Fetcher, "_proc_fetch_request", 5, ValueError())'


@pytest.mark.stack
def test_a_worker_whose_group_refuses_it_joins_again(bus: Any, store: sa.Engine, tmp_path: Path) -> None:
    before, later = count(store, ticket_event), 100_000
    produce(bus.kafka, TICKET, [ticket(later)])
    process = launch(bus, tmp_path, ("-c", FAILING.format(REFUSED)))
    try:
        wait_until(lambda: said(tmp_path, "_do_heartbeat fails"), 180, "the sixth heartbeat")
        wait_until(lambda: said(tmp_path, "joining the group again", 2), 180, "both joins")
        produce(bus.kafka, TICKET, [ticket(later + n) for n in range(1, 40)])
        wait_until(lambda: count(store, ticket_event) == before + 40, 180, "every event")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.stack
def test_a_worker_that_can_fetch_no_more_ends_and_says_where(bus: Any, tmp_path: Path) -> None:
    process = launch(bus, tmp_path, ("-c", FAILING.format(UNABLE)))
    try:
        assert process.wait(180) == os.EX_SOFTWARE
        assert said(tmp_path, "_keep_member")
    finally:
        process.kill()


COUNTING = """
import runpy
from aiokafka.consumer.fetcher import Fetcher

real = Fetcher._proc_fetch_request

async def call(self, *args):
    print("asks the broker", flush=True)
    return await real(self, *args)

Fetcher._proc_fetch_request = call
runpy.run_module("streams", run_name="__main__")
"""


@pytest.mark.stack
def test_a_worker_without_work_asks_the_broker_seldom(bus: Any, store: sa.Engine, tmp_path: Path) -> None:
    before = count(store, ticket_event)
    process = launch(bus, tmp_path, ("-c", COUNTING))
    try:
        produce(bus.kafka, TICKET, [ticket(200_000)])
        wait_until(lambda: count(store, ticket_event) == before + 1, 180, "the ticket")
        time.sleep(1)
        asked = times_said(tmp_path, "asks the broker")
        time.sleep(4)
        assert 0 < times_said(tmp_path, "asks the broker") - asked <= 4 * 10
    finally:
        process.kill()
        process.wait()


def said(home: Path, text: str, times: int = 1) -> bool:
    """Whether the worker's log has ``text`` that often."""
    return times_said(home, text) >= times


def times_said(home: Path, text: str) -> int:
    """How often the worker's log has ``text``."""
    return (home / "log").read_text().count(text)


def statuses(store: sa.Engine) -> list[str]:
    """Statuses in the licence index."""
    with store.connect() as tx:
        return list(tx.execute(sa.select(licence.c.status)).scalars())
