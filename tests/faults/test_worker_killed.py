"""Workers die with kill -9 at random moments while a simulated year flows: nothing lost, nothing doubled.

The length is set by GOVBUS_TEST_KILLS and GOVBUS_TEST_CASES: a short one in `make test`; the long one (50 kills, 31,000
cases: over 200,000 events) is `make kills`, which prints the recovery times.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer, Producer, TopicPartition

from govbus.district import oracle
from govbus.district.generator import make
from govbus.district.model import District, Row
from govbus.district.publishing import Departments, raws
from govbus.supervisor import Child, Supervisor
from schemas.topics import INBOUND
from streams.store.engine import connect

KILLS = int(os.environ.get("GOVBUS_TEST_KILLS", "3"))
CASES = int(os.environ.get("GOVBUS_TEST_CASES", "400"))
SEED = int(os.environ.get("GOVBUS_TEST_SEED", "5"))
CYCLE_S = 5.0
WORKERS = ("worker-1", "worker-2")
RECOVERY_LIMIT_S = float(os.environ.get("GOVBUS_TEST_RECOVERY_S", "60"))  # a figure only on a quiet machine
SLICE = 250

pytestmark = pytest.mark.stack


class Lag:
    """How far the SQL cursors are behind the log; Kafka's own group offsets are not asked."""

    def __init__(self, kafka: str, engine: sa.Engine) -> None:
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": "lag-of-the-test"})
        self._engine = engine
        self._places = [TopicPartition(t.name, p) for t in INBOUND for p in range(t.partitions)]

    def ends(self) -> dict[tuple[str, int], int]:
        return {
            (tp.topic, tp.partition): self._consumer.get_watermark_offsets(tp, timeout=10)[1]
            for tp in self._places
        }

    def cursors(self) -> dict[tuple[str, int], int]:
        with self._engine.connect() as tx:
            rows = tx.execute(sa.text("SELECT topic, partition, next_offset FROM cursor"))
            return {(topic, partition): offset for topic, partition, offset in rows}

    def behind(self, ends: Mapping[tuple[str, int], int]) -> int:
        at = self.cursors()
        return sum(max(0, end - at.get(place, 0)) for place, end in ends.items())


def unsent(engine: sa.Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")).scalar_one())


@contextlib.contextmanager
def told_on_failure(logs: Path) -> Iterator[None]:
    """Print what the processes said last if the test fails."""
    try:
        yield
    except BaseException:
        for path in sorted(logs.glob("*.log")):
            print(f"--- {path.name}", path.read_text(errors="replace")[-6000:], sep="\n")
        raise


def wait_for(what: str, true: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return time.monotonic() - began


class Feed(threading.Thread):
    """Publishes the district's rows in step with the kills, so that events flow at every one of them."""

    def __init__(self, engine: sa.Engine, rows: Sequence[Row]) -> None:
        super().__init__(daemon=True)
        self._departments = Departments(engine)
        self._rows = rows
        self._kills, self._since = 0, time.monotonic()
        self.failure: BaseException | None = None

    def killed(self) -> None:
        self._kills, self._since = self._kills + 1, time.monotonic()

    def run(self) -> None:
        try:
            for start in range(0, len(self._rows), SLICE):
                while start / len(self._rows) > self._allowed():
                    time.sleep(0.05)
                self._departments.publish(self._rows[start : start + SLICE])
        except BaseException as error:
            self.failure = error

    def _allowed(self) -> float:
        """The share of the rows that may have been published by now."""
        return (self._kills + min(1.0, (time.monotonic() - self._since) / CYCLE_S)) / KILLS

    def finish(self) -> None:
        self.join(600)
        assert not self.is_alive()
        assert self.failure is None
        assert self._departments.tally.surprises == []


def processes(bus: Any) -> list[Child]:
    """A relay and two workers with names."""
    env = {
        "GOVBUS_KAFKA": bus.kafka,
        "GOVBUS_DATABASE_URL": bus.database_url,
        "GOVBUS_CLOCK": "watermark",
        "GOVBUS_HOME": str(bus.settings.home),
    }
    verbs = (("relay", "relay"), *((name, "worker") for name in WORKERS))
    return [
        Child(name, [sys.executable, "-m", "govbus.cli", verb], {**env, "GOVBUS_WORKER_NAME": name})
        for name, verb in verbs
    ]


def kill_one(running: Supervisor, name: str, lag: Lag) -> float:
    """Kill a worker; seconds until what stood in the log then is applied."""
    wait_for(f"{name} runs again", lambda: running.pid(name) is not None, 15)
    pid = running.pid(name)
    assert pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    ends = lag.ends()
    return 0.3 + wait_for("recovery", lambda: lag.behind(ends) == 0, 60)


def poison(kafka: str, district: District) -> None:
    """Records past the publisher, straight into the log."""
    producer = Producer({"bootstrap.servers": kafka})
    for raw in raws(district.poison):
        producer.produce(raw.topic.name, key=raw.key, value=raw.value, headers=raw.headers)
    assert producer.flush(30) == 0


def test_no_event_is_lost_or_doubled_when_workers_are_killed_at_random_moments(bus: Any) -> None:
    made = make(SEED, CASES, 0)
    expected = oracle.expect(made)
    rng = random.Random(SEED)
    engine, logs = connect(bus.database_url), bus.settings.home / "logs"
    lag, feed, recoveries = Lag(bus.kafka, engine), Feed(engine, made.district.rows), []
    with Supervisor(processes(bus), logs, backoff=(0.2, 1.0)) as running, told_on_failure(logs):
        running.wait_ready(30)
        feed.start()
        wait_for("the first events", lambda: sum(lag.cursors().values()) > 0, 60)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 2.0))
            recoveries.append(kill_one(running, rng.choice(WORKERS), lag))
            feed.killed()
        feed.finish()
        poison(bus.kafka, made.district)
        wait_for("an empty outbox", lambda: unsent(engine) == 0, 60)
        wait_for("zero lag", lambda: lag.behind(lag.ends()) == 0, 60)
        differences, until = ["not compared yet"], time.monotonic() + 30
        while differences and time.monotonic() < until:  # timers of the last moment still speak
            time.sleep(1)
            differences = oracle.compare(engine, expected)
    median, worst = sorted(recoveries)[len(recoveries) // 2], max(recoveries)
    events = sum(expected["events"].values())
    print(f"\n{KILLS} kills, {events} events; recovery to zero lag: median {median:.1f} s, worst {worst:.1f} s")
    assert differences == []
    assert worst < RECOVERY_LIMIT_S
