"""What waits on its way is counted wherever it may wait, and what cannot be counted is said."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from types import SimpleNamespace
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
from streams.store.tables import case_group, case_state, cursor, delivery, desk_check, group_state, outbox, push_queue

pytestmark = pytest.mark.stack
DELIVERY = "delivery on oversight.alert.v1"
JUDGE = "judge on service.case.v1"
WHOSE: dict[str, Any] = {"region": "430903", "department": "HS-ZJJ", "provisional": False}


class Broker:
    """A log in which every partition of the topics that exist ends at 5."""

    def __init__(self, exists: bool = True, partitions: int = 1, written_at: int = 1 << 62) -> None:
        self._written_at = written_at
        self._numbers = set(range(partitions)) if exists else None

    def partitions_for_topic(self, _: str) -> set[int] | None:
        return self._numbers

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 5)

    def offsets_for_times(self, asked: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {place: SimpleNamespace(offset=0) if self._written_at >= at else None for place, at in asked.items()}

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
    for case, at in (("DUE", now - 90_000), ("LATER", now + 3_600_000), ("NEVER", None)):
        with engine.begin() as tx:
            tx.execute(sa.update(desk_check).where(desk_check.c.key == case).values(next_check_at=at))
    found = waiting(engine)
    assert found["undecided"] == 2
    (told,) = (line for line in stack._waiting(found) if line.startswith("2 cases and departments"))
    assert told.startswith("2 cases and departments wait for the desk (govbus consume), the oldest for 9")


def test_what_a_worker_that_stands_still_has_to_judge_is_counted_though_no_event_comes(engine: sa.Engine) -> None:
    now = wall_clock()
    put(engine, cursor, processor="judge", topic="service.case.v1", partition=3, next_offset=1, watermark=now)
    for case, at in (("DUE", now - 90_000), ("MARKED", 0), ("LATER", now + 3_600_000), ("NEVER", None)):
        kept = {"item_code": "1", "status": "ACCEPTED", "state": {}, "next_check_at": at, **WHOSE}
        put(engine, case_state, case_no=case, partition=3, **kept)
    groups = (("STALE", True, None), ("DUE", False, now - 1), ("BOTH", True, 0), ("LATER", False, now + 3_600_000))
    for key, stale, at in groups:
        put(engine, case_group, group_key=key, case_no="DUE", partition=3, stale=stale)
        kept = {"stage": "", "limit_rule": "", "calendar_version": "", "parts": {}, "next_check_at": at, **WHOSE}
        put(engine, group_state, group_key=key, **kept)
    found = waiting(engine)
    assert found["unjudged"] == 2 + 3
    (told,) = (line for line in stack._waiting(found) if line.startswith("5 cases and groups"))
    assert told.startswith("5 cases and groups of cases wait for the worker's look (govbus worker), the oldest for 9")


def test_open_clocks_that_end_in_a_year_without_a_calendar_are_counted_and_it_is_said_what_to_do(
    engine: sa.Engine,
) -> None:
    case = {"partition": 0, "item_code": "I", "status": "ACCEPTED", "state": {}, **WHOSE}
    put(engine, case_state, case_no="C1", **case | {"provisional": True})
    put(engine, case_state, case_no="C2", stopped_at=1, **case | {"provisional": True})
    put(engine, case_state, case_no="C3", **case)
    kept = {"stage": "", "limit_rule": "", "calendar_version": "", "parts": []}
    put(engine, group_state, group_key="project/430903/P", **kept, **WHOSE | {"provisional": True})
    found = waiting(engine)
    assert found["provisional"] == 2
    assert (
        "2 open clocks end on a day whose calendar is not published, and bring no red card until it is "
        "(govbus calendar load, docs/calendar.md)"
    ) in list(stack._waiting(found))


def status(monkeypatch: pytest.MonkeyPatch, url: str, *options: str) -> Any:
    monkeypatch.setattr("connectors.local.broker.serves", lambda _: True)
    monkeypatch.setenv("GOVBUS_KAFKA", "kafka:9092")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
    return CliRunner().invoke(build(), ["status", *options])


def test_missing_tables_are_said(monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> None:
    url = postgres.create(name := f"bare_{uuid.uuid4().hex[:8]}")
    try:
        done, alarmed = status(monkeypatch, url), status(monkeypatch, url, "--max-wait", "60")
    finally:
        postgres.drop(name)
    assert (done.exit_code, alarmed.exit_code) == (0, 1)
    assert "alarm: what waits is not known: " in alarmed.stdout
    assert "what waits is not known: the database is not at the newest schema: govbus db upgrade" in done.stdout


def test_missing_topics_are_said(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setattr(behind, "reader", lambda _: Broker(exists=False))
    told = json.loads(status(monkeypatch, database, "--json").stdout)
    assert told["behind"] is None
    assert told["why"].startswith("what waits is not known: topic ")
    assert told["why"].endswith(" is not on the broker yet: govbus topics apply")


ID = uuid.UUID(int=7)
WAITED_S = 90
AGED = (
    "events wait for Kafka (govbus relay)",
    "cases and groups of cases wait for the worker's look (govbus worker)",
    "cases and departments wait for the desk (govbus consume)",
    "records wait for the province (govbus push)",
    "alerts wait for their subscribers (govbus alerts deliveries)",
)


@pytest.fixture
def waited(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> int:
    """One of each waits since this moment (epoch ms), 90 s ago; the records of Kafka too."""
    at = wall_clock() - 1000 * WAITED_S
    monkeypatch.setattr(behind, "reader", lambda _: Broker(written_at=at))
    said = {"event_id": ID, "region": "430903", "department": "HS-ZJJ", "digest": ID}
    kept = {**said, "key": "", "occurred_at": at, "received_at": at, "content_digest": ID, "value": b"", "headers": {}}
    put(engine, outbox, topic="service.case.v1", queued_at=at, **kept)
    put(engine, outbox, topic="rating.upload.v1", queued_at=at, sent_at=at, **kept)
    put(engine, push_queue, topic="rating.upload.v1", body={}, **said)
    put(engine, delivery, channel="hook", event_id=ID, case_no="", body={}, queued_at=at, not_before=at)
    put(engine, cursor, processor="judge", topic="service.case.v1", partition=0, next_offset=1, watermark=at)
    state = {"item_code": "", "status": "ACCEPTED", "state": {}, "next_check_at": at, **WHOSE}
    put(engine, case_state, case_no="C1", partition=0, **state)
    put(engine, desk_check, scope=desk.CASE, key="C1", partition=0, next_check_at=at)
    return at


def test_whoever_watches_over_the_bus_is_alarmed_by_what_has_waited_for_too_long(
    monkeypatch: pytest.MonkeyPatch, database: str, waited: int
) -> None:
    patient = status(monkeypatch, database, "--json", "--max-wait", "3600")
    assert (patient.exit_code, json.loads(patient.stdout)["overdue"]) == (0, [])
    alarmed = status(monkeypatch, database, "--json", "--max-wait", "60")
    told = json.loads(alarmed.stdout)
    assert alarmed.exit_code == 1
    assert [line.partition(", the oldest for ")[0] for line in told["overdue"][:5]] == [f"1 {words}" for words in AGED]
    assert f"{JUDGE}: 4 records behind, the oldest for too long" in told["overdue"]
    names = ("unsent", "unjudged", "undecided", "unacknowledged", "undelivered")
    ages = [told["behind"][f"{name}_ms"] for name in names]
    assert all(1000 * WAITED_S - 1000 < age <= wall_clock() - waited for age in ages)
    in_words = status(monkeypatch, database, "--max-wait", "60")
    assert in_words.exit_code == 1
    assert f"alarm: 1 {AGED[0]}, the oldest for " in in_words.stdout
    assert status(monkeypatch, database).exit_code == 0
    assert status(monkeypatch, database, "--alive", "--max-wait", "60").exit_code == 2


def test_what_waits_for_its_time_or_bears_none_alarms_nobody(
    monkeypatch: pytest.MonkeyPatch, database: str, engine: sa.Engine
) -> None:
    monkeypatch.setattr(behind, "gaps", lambda *_: [])
    ago, ahead = wall_clock() - 3_600_000, wall_clock() + 3_600_000
    row = {"event_id": ID, "case_no": "", "body": {}, "queued_at": ago}
    put(engine, delivery, channel="held over night", not_before=ahead, **row)
    put(engine, delivery, channel="digest", not_before=ago, **row)
    put(engine, desk_check, scope=desk.CASE, key="marked", partition=0, next_check_at=0)
    asked = status(monkeypatch, database, "--json", "--max-wait", "0")
    told = json.loads(asked.stdout)
    assert (asked.exit_code, told["overdue"]) == (0, [])
    assert (told["behind"]["undelivered"], told["behind"]["undecided"]) == (2, 1)


def test_a_log_that_has_lost_records_alarms_at_once(
    monkeypatch: pytest.MonkeyPatch, database: str, engine: sa.Engine
) -> None:
    put(engine, cursor, processor="judge", topic="service.case.v1", partition=0, next_offset=9)
    asked = status(monkeypatch, database, "--json", "--max-wait", "3600")
    lost = f"{JUDGE}: the log has lost 4 records that were applied (govbus resend)"
    assert (asked.exit_code, json.loads(asked.stdout)["overdue"]) == (1, [lost])
    assert status(monkeypatch, database).exit_code == 0


def test_what_is_queued_for_a_subscriber_that_is_gone_alarms_nobody_after_what_the_guide_says(
    monkeypatch: pytest.MonkeyPatch, database: str, engine: sa.Engine
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    statements = re.findall(r"`((?:UPDATE|DELETE FROM) (?:delivery|cursor) [^`]+)`", guide)
    assert len(statements) == 2
    ago = wall_clock() - 3_600_000
    row = {"event_id": ID, "case_no": "", "body": {}, "queued_at": ago, "not_before": ago}
    for channel in ("gone", "desk"):
        put(engine, delivery, channel=channel, **row)
    put(engine, cursor, processor="delivery", topic="oversight.alert.v1", partition=0, next_offset=1)

    def waiting() -> tuple[int, bool]:
        found = json.loads(status(monkeypatch, database, "--json").stdout)["behind"]
        return found["undelivered"], DELIVERY in found["lag"]

    assert waiting() == (2, True)
    for statement, left in zip(statements, ((1, True), (1, False)), strict=True):
        with engine.begin() as tx:
            tx.exec_driver_sql(statement.replace("'名称'", "'gone'"))
        assert waiting() == left
