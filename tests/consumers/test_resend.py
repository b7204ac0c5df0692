"""What a broker lost although it had acknowledged it: named, waited for, and sent again once, on a real broker."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kafka import KafkaAdminClient

from connectors import intact, relay, topics_admin
from connectors.local.broker import Cluster
from connectors.relay import Relay
from consumers.loop import Loop
from consumers.reconcile import reconcile
from consumers.resend import resend
from govbus.chaos import logfile
from schemas.topics import RATING, Topic
from streams.store.tables import cursor

pytestmark = pytest.mark.stack
PLACES = [(RATING.name, number) for number in range(RATING.partitions)]


class Notes:
    """Counts in SQL how often each case was acted on."""

    name = "notes"
    topics: tuple[Topic, ...] = (RATING,)
    patience_ms = 0

    def apply(self, tx: sa.Connection, events: Any) -> None:
        for event in events:
            change = "INSERT INTO note VALUES (:c, 1) ON CONFLICT (c) DO UPDATE SET n = note.n + 1"
            tx.execute(sa.text(change), {"c": event.record["case_no"]})


@pytest.fixture
def own(stack_directory: Path) -> Iterator[Cluster]:
    """A broker that may lose its log."""
    with Cluster(stack_directory / f"lossy-{uuid.uuid4().hex[:6]}", tied=True) as cluster:
        topics_admin.apply(cluster.bootstrap)
        yield cluster


@contextmanager
def acting(*work: Callable[[threading.Event], None]) -> Iterator[list[threading.Thread]]:
    """Relays and consumers at work, each in a thread."""
    stop = threading.Event()
    threads = [threading.Thread(target=act, args=(stop,), daemon=True) for act in work]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def number(engine: sa.Engine, query: str) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text(query)).scalar_one())


UNSENT = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
NOTED = "SELECT count(*) FROM note"


def missing(engine: sa.Engine, kafka: str) -> set[str]:
    return {d.event_id for d in reconcile(engine, kafka, None).differences if d.place == "carried"}


@pytest.fixture
def published(engine: sa.Engine, make_rating: Any) -> Callable[[str, int], None]:
    """Publishes ratings of cases of its own, ten at a time."""
    from streams.store import outbox

    with engine.begin() as tx:
        tx.execute(sa.text("CREATE TABLE note (c text PRIMARY KEY, n int)"))

    def publish(prefix: str, count: int) -> None:
        for start in range(0, count, 10):  # a batch of Kafka's for every ten
            with engine.begin() as tx:
                rows = [outbox.row(RATING, make_rating(f"{prefix}-{n}")) for n in range(start, start + 10)]
                outbox.enqueue(tx, rows)
            time.sleep(0.02)

    return publish


def lose(own: Cluster, cut: Callable[[Path, int], int | None]) -> dict[int, int]:
    """Kill the broker, ``cut`` what it wrote last, start it again; the first offset lost, by partition."""
    own.nodes[0].kill()
    data = own.nodes[0].directory / "data"
    paths = {p: logfile.segment(data, (RATING.name, p)) for p in range(RATING.partitions)}
    lost = {p: at for p, path in paths.items() if (at := cut(path, 2)) is not None}
    own.start()
    return lost


@pytest.mark.parametrize("cut", [logfile.tear, logfile.damage])
def test_what_a_power_cut_took_is_named_waited_for_and_sent_again_once(
    own: Cluster, engine: sa.Engine, published: Any, wait_until: Any, cut: Callable[[Path, int], int | None]
) -> None:
    with acting(Relay(engine, own.bootstrap).run, Loop(engine, own.bootstrap, Notes()).run):
        published("a", 100)
        wait_until(lambda: number(engine, NOTED) == 100)
        lost = lose(own, cut)
        where = " OR ".join(f"(sent_partition = {p} AND sent_offset >= {at})" for p, at in lost.items())
        with engine.connect() as tx:
            gone = {str(i) for (i,) in tx.execute(sa.text(f"SELECT event_id FROM outbox WHERE {where}"))}
        assert len(gone) >= 10
        assert missing(engine, own.bootstrap) == gone
        published("b", 20)
        time.sleep(2.0)
        assert number(engine, UNSENT) == 20, "something was sent into a log that had lost records"
        dry = resend(engine, own.bootstrap, dry=True)
        assert dry.lost == {RATING.name: len(gone)}
        assert number(engine, UNSENT) == 20
        assert resend(engine, own.bootstrap).lost == dry.lost
        wait_until(lambda: number(engine, NOTED) == 120 and number(engine, UNSENT) == 0)
        wait_until(lambda: missing(engine, own.bootstrap) == set())
    assert resend(engine, own.bootstrap, dry=True).nothing


def test_a_topic_deleted_and_made_again_is_noticed_and_filled_again(
    own: Cluster, engine: sa.Engine, published: Any, wait_until: Any
) -> None:
    with acting(Relay(engine, own.bootstrap).run, Loop(engine, own.bootstrap, Notes()).run):
        published("c", 50)
        wait_until(lambda: number(engine, NOTED) == 50)
        admin = KafkaAdminClient(bootstrap_servers=own.bootstrap)
        admin.delete_topics([RATING.name])
        admin.close()
        published("d", 10)
        wait_until(lambda: topics_admin.apply(own.bootstrap) != [])
        time.sleep(2.0)
        assert number(engine, UNSENT) == 10, "something was sent below the cursors"
        found = resend(engine, own.bootstrap)
        assert found.lost == {RATING.name: 50}
        assert {m.now for m in found.moved} == {0}
        wait_until(lambda: number(engine, NOTED) == 60 and number(engine, UNSENT) == 0)
        assert missing(engine, own.bootstrap) == set()
    assert resend(engine, own.bootstrap, dry=True).nothing


def test_the_relay_goes_on_though_a_consumer_has_read_what_landed_before_it_looked_again(
    own: Cluster, engine: sa.Engine, published: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LOOK_SECONDS", 3.0)
    with acting(Relay(engine, own.bootstrap).run):
        published("f", 50)
        wait_until(lambda: number(engine, UNSENT) == 0)
        admin = KafkaAdminClient(bootstrap_servers=own.bootstrap)
        admin.delete_topics([RATING.name])
        admin.close()
        published("g", 10)
        wait_until(lambda: topics_admin.apply(own.bootstrap) != [])
        time.sleep(2.0)
        resend(engine, own.bootstrap)
        ends = intact.ends(own.bootstrap, PLACES)
        with engine.begin() as tx:
            rows = [{"processor": "quick", "topic": t, "partition": p, "next_offset": o} for (t, p), o in ends.items()]
            tx.execute(sa.insert(cursor), rows)
        wait_until(lambda: number(engine, UNSENT) == 0, 20.0)
    assert missing(engine, own.bootstrap) == set()


def test_a_consumer_waits_for_a_damaged_batch_and_the_other_partitions_go_on(
    own: Cluster, engine: sa.Engine, published: Any, wait_until: Any
) -> None:
    with acting(Relay(engine, own.bootstrap).run):
        published("e", 60)
        wait_until(lambda: number(engine, UNSENT) == 0)
    with engine.connect() as tx:
        query = "SELECT sent_partition, count(*) FROM outbox GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
        partition, held = tx.execute(sa.text(query)).one()
    path = logfile.segment(own.nodes[0].directory / "data", (RATING.name, partition))
    first = logfile.batches(path)[0].first
    logfile.flip_at(path, first)
    with acting(Loop(engine, own.bootstrap, Notes()).run) as threads:
        wait_until(lambda: number(engine, NOTED) == 60 - held)
        time.sleep(1.0)
        assert all(thread.is_alive() for thread in threads), "it ended at a damaged batch"
        assert number(engine, NOTED) == 60 - held
        logfile.flip_at(path, first)
        wait_until(lambda: number(engine, NOTED) == 60)
