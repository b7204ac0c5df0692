"""A rebuild under a running worker: emptied, read again, the same; what was said is not said twice.

Alerts alone may be taken back and said again on the way (two events of a case, taken in at one moment, may meet in one
transaction the first time and in two the second); what is said of each in the end must be the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.publisher import Publisher
from connectors.relay import Relay
from govbus import cli
from govbus.district import publishing
from govbus.district.generator import make
from schemas import codec
from schemas.topics import ALERT, TICKET
from streams.store.engine import connect
from streams.store.tables import STATE_TABLES

pytestmark = pytest.mark.stack


def dump(engine: sa.Engine) -> dict[str, list[str]]:
    """Every row of every state table as text, sorted."""
    with engine.connect() as tx:
        return {
            t.name: sorted(tx.execute(sa.text(f'SELECT to_jsonb(t)::text FROM "{t.name}" t')).scalars())
            for t in STATE_TABLES
        }


def last_words(engine: sa.Engine) -> dict[str, str]:
    """Every event that went out, by id; of each alert only the last word."""
    with engine.connect() as tx:
        rows = tx.execute(sa.text("SELECT topic, event_id, value FROM outbox ORDER BY seq")).all()
    words = {}
    for topic, event_id, value in rows:
        if topic == ALERT.name:
            alert = codec.decode(bytes(value), ALERT)
            words[alert["alert_id"]] = alert["event_type"]
        else:
            words[str(event_id)] = topic
    return words


def scalar(engine: sa.Engine, sql: str) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text(sql)).scalar_one())


def until(true: Callable[[], bool], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.2)


@pytest.fixture
def processes(bus: Any, tmp_path: Path) -> Iterator[None]:
    """A relay and a worker on the bus."""
    base = [sys.executable, "-m"]
    worker = ["streams", "--kafka", bus.kafka, "--database-url", bus.database_url, "--clock", "watermark"]
    env = {"GOVBUS_KAFKA": bus.kafka, "GOVBUS_DATABASE_URL": bus.database_url, "PATH": "/usr/bin:/bin"}
    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen([*base, *worker, "--home", str(tmp_path)], stdout=log, stderr=log),
            subprocess.Popen([*base, "govbus.cli", "relay"], stdout=log, stderr=log, env=env),
        ]
        yield
        for process in running:
            process.kill()
            process.wait()


def settled(engine: sa.Engine) -> Callable[[], bool]:
    """True once nothing is unsent, nothing is due and two looks a second apart found the same."""
    last: list[Any] = [None]

    def look() -> bool:
        if scalar(engine, "SELECT count(*) FROM outbox WHERE sent_at IS NULL"):
            return False
        found, last[0] = last[0], (dump(engine), scalar(engine, "SELECT count(*) FROM outbox"))
        time.sleep(1)
        return bool(found == last[0])

    return look


@pytest.mark.usefixtures("processes")
def test_after_a_rebuild_every_table_holds_what_it_held_and_nothing_is_said_twice(
    bus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(bus.database_url)
    made = make(3, 60, 0)
    publishing.Departments(engine).publish(made.district.rows)
    rows = scalar(engine, "SELECT count(*) FROM outbox WHERE topic LIKE 'service.%'")
    until(lambda: scalar(engine, "SELECT count(*) FROM case_event") > 0, "the first events")
    until(settled(engine), "the first reading to settle")
    before, said = dump(engine), last_words(engine)
    assert rows
    assert all(before[name] for name in ("case_state", "card", "rating_cell", "licence", "directory_entry"))

    monkeypatch.setenv("GOVBUS_KAFKA", bus.kafka)
    monkeypatch.setenv("GOVBUS_DATABASE_URL", bus.database_url)
    answer = CliRunner().invoke(cli.build(), ["rebuild", "--yes", "--timeout", "60", "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["caught_up"] is True
    until(settled(engine), "the second reading to settle")

    assert dump(engine) == before
    assert last_words(engine) == said


def test_a_rebuild_without_a_worker_says_so_and_does_not_end_well(bus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(bus.database_url)
    row = {"ticket_no": "T1", "event_type": "ticket.opened", "occurred_at": "2020-09-21 11:00:00"}
    assert Publisher(engine, "HS-QZRXB", "430903").publish(TICKET, [row])[0].accepted
    stop = threading.Event()
    relaying = threading.Thread(target=Relay(engine, bus.kafka).run, args=(stop,))
    relaying.start()
    until(lambda: scalar(engine, "SELECT count(*) FROM outbox WHERE sent_at IS NULL") == 0, "the relay", 30)
    stop.set()
    relaying.join()
    monkeypatch.setenv("GOVBUS_KAFKA", bus.kafka)
    monkeypatch.setenv("GOVBUS_DATABASE_URL", bus.database_url)
    answer = CliRunner().invoke(cli.build(), ["rebuild", "--yes", "--timeout", "1"])
    assert answer.exit_code == 1
    assert "is a worker running" in answer.output
