"""What waits on its way is counted wherever it may wait, and what cannot be counted is said."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from kafka import TopicPartition
from typer.testing import CliRunner

from connectors.local.postgres import Postgres
from govbus import behind
from govbus.cli import build
from govbus.commands import stack
from schemas.clock import wall_clock
from streams.store import desk
from streams.store.tables import case_group, case_state, cursor, desk_check, group_state

pytestmark = pytest.mark.stack
DELIVERY = "delivery on oversight.alert.v1"
JUDGE = "judge on service.case.v1"
WHOSE: dict[str, Any] = {"region": "430903", "department": "HS-ZJJ", "provisional": False}


class Broker:
    """A log in which every partition of the topics that exist ends at 5."""

    def __init__(self, exists: bool = True, partitions: int = 1) -> None:
        self._numbers = set(range(partitions)) if exists else None

    def partitions_for_topic(self, _: str) -> set[int] | None:
        return self._numbers

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 5)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "reader", lambda _: Broker())


def waiting(engine: sa.Engine, subscribed: bool = False) -> dict[str, Any]:
    with engine.connect() as tx:
        return behind.behind(tx, "kafka:9092", subscribed)


def put(engine: sa.Engine, table: sa.Table, **values: object) -> None:
    with engine.begin() as tx:
        tx.execute(sa.insert(table).values(values))


def test_a_delivery_that_stands_still_is_behind_where_somebody_is_to_be_told_or_was(engine: sa.Engine) -> None:
    assert DELIVERY not in waiting(engine)["lag"]
    assert waiting(engine, subscribed=True)["lag"][DELIVERY] == 5
    put(engine, cursor, processor="delivery", topic="oversight.alert.v1", partition=0, next_offset=3)
    assert waiting(engine)["lag"][DELIVERY] == 2


def test_what_the_log_has_lost_is_told_apart_and_hides_nothing_that_waits(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "reader", lambda _: Broker(partitions=2))
    for partition, at in ((0, 3), (1, 9)):
        put(engine, cursor, processor="judge", topic="service.case.v1", partition=partition, next_offset=at)
    found = waiting(engine)
    assert (found["lag"][JUDGE], found["lost"]) == (2, {JUDGE: 4})
    assert f"{JUDGE}: the log has lost 4 records that were applied (govbus resend)" in list(stack._waiting(found))


def test_what_a_desk_that_stands_still_has_to_look_at_is_counted(engine: sa.Engine) -> None:
    now = wall_clock()
    put(engine, cursor, processor="judge", topic="service.case.v1", partition=0, next_offset=1, watermark=now)
    with engine.begin() as tx:
        desk.mark(tx, desk.CASE, {"MARKED": 0, "DUE": 0, "LATER": 0, "NEVER": 0})
    for case, at in (("DUE", now - 1), ("LATER", now + 3_600_000), ("NEVER", None)):
        with engine.begin() as tx:
            tx.execute(sa.update(desk_check).where(desk_check.c.key == case).values(next_check_at=at))
    found = waiting(engine)
    assert found["undecided"] == 2
    assert "2 cases and departments wait for the desk (govbus consume)" in list(stack._waiting(found))


def test_what_a_worker_that_stands_still_has_to_judge_is_counted_though_no_event_comes(engine: sa.Engine) -> None:
    now = wall_clock()
    put(engine, cursor, processor="judge", topic="service.case.v1", partition=3, next_offset=1, watermark=now)
    for case, at in (("DUE", now - 1), ("MARKED", 0), ("LATER", now + 3_600_000), ("NEVER", None)):
        kept = {"item_code": "1", "status": "ACCEPTED", "state": {}, "next_check_at": at, **WHOSE}
        put(engine, case_state, case_no=case, partition=3, **kept)
    groups = (("STALE", True, None), ("DUE", False, now - 1), ("BOTH", True, 0), ("LATER", False, now + 3_600_000))
    for key, stale, at in groups:
        put(engine, case_group, group_key=key, case_no="DUE", partition=3, stale=stale)
        kept = {"stage": "", "limit_rule": "", "calendar_version": "", "parts": {}, "next_check_at": at, **WHOSE}
        put(engine, group_state, group_key=key, **kept)
    found = waiting(engine)
    assert found["unjudged"] == 2 + 3
    assert "5 cases and groups of cases wait for the worker's look (govbus worker)" in list(stack._waiting(found))


def status(monkeypatch: pytest.MonkeyPatch, url: str, *options: str) -> Any:
    monkeypatch.setattr("connectors.local.broker.serves", lambda _: True)
    monkeypatch.setenv("GOVBUS_KAFKA", "kafka:9092")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
    return CliRunner().invoke(build(), ["status", *options])


def test_missing_tables_are_said(monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> None:
    url = postgres.create(name := f"bare_{uuid.uuid4().hex[:8]}")
    try:
        done = status(monkeypatch, url)
    finally:
        postgres.drop(name)
    assert done.exit_code == 0
    assert "what waits is not known: the database is not at the newest schema: govbus db upgrade" in done.stdout


def test_missing_topics_are_said(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setattr(behind, "reader", lambda _: Broker(exists=False))
    told = json.loads(status(monkeypatch, database, "--json").stdout)
    assert told["behind"] is None
    assert told["why"].startswith("what waits is not known: topic ")
    assert told["why"].endswith(" is not on the broker yet: govbus topics apply")
