"""Migrations lead to the tables that the code declares."""

from __future__ import annotations

import uuid
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from schemas.errors import Misconfigured
from streams.store import migrate
from streams.store.engine import connect
from streams.store.tables import (
    alert_inbox,
    alert_life,
    desk_check,
    metadata,
    push_queue,
    rating_cell_merged,
    rating_event,
    rating_out,
)

pytestmark = pytest.mark.stack


def differences(engine: sa.Engine) -> list[object]:
    with engine.connect() as tx:
        return list(compare_metadata(MigrationContext.configure(tx, opts={"compare_type": True}), metadata))


def test_migrated_tables_are_the_declared_tables(engine: sa.Engine) -> None:
    assert differences(engine) == []


def test_a_forgotten_column_is_noticed(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text("ALTER TABLE alert_life DROP COLUMN closed_at"))
    assert differences(engine)


def test_an_upgrade_may_be_repeated(database: str, engine: sa.Engine) -> None:
    up(database, engine)
    assert differences(engine) == []


def test_nobody_migrates_beside_a_process_that_still_works(
    database: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    down(engine)
    engine.dispose()
    monkeypatch.setattr(migrate, "LEAVING_S", 0.5)
    worker = connect(database, checked=False)
    with worker.connect() as tx:
        tx.execute(sa.text("SELECT 1"))
        with pytest.raises(Misconfigured, match="1 sessions of govbus still work on this database"):
            migrate.upgrade(database)
    monkeypatch.undo()
    worker.dispose()
    up(database, engine)
    assert differences(engine) == []


SAID = '{"seq": 1, "action": "ISSUED", "content": "…", "alert": ["%s", 1, "ESCALATION", "RED", "HS-ESC-DEPT", "1", '
SAID += '"HS-ZJJ/x", null, "", false, ["r"], %d, null, ""], "about": {}}'
SEPTEMBER, OCTOBER = 1_600_000_000_000, 1_602_000_000_000
KEPT = sa.text("SELECT key, partition, next_check_at, (SELECT array_agg(s) FROM jsonb_object_keys(said) AS s) "
               "FROM desk_check ORDER BY scope, key")  # fmt: skip


def up(database: str, engine: sa.Engine) -> None:
    """Migrates beside nobody: ``engine`` keeps no connection."""
    engine.dispose()
    migrate.upgrade(database)


def down(engine: sa.Engine, revision: str = "0006") -> None:
    with engine.begin() as tx:
        command.downgrade(migrate.config(tx), revision)


def test_what_was_said_of_a_department_moves_to_its_months_and_back(database: str, engine: sa.Engine) -> None:
    down(engine)
    said = "{" + f'"a": {SAID % ("a", SEPTEMBER)}, "b": {SAID % ("b", OCTOBER)}' + "}"
    red: dict[str, Any] = {c.name: "" for c in alert_life.c if not c.nullable}
    red |= {"department": "HS-ZJJ", "kind": "CARD", "colour": "RED", "issued_at": SEPTEMBER, "dues": {}, "steps": []}
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_life).values(red))
        tx.execute(sa.text("INSERT INTO desk_check VALUES ('DEPARTMENT', 'HS-ZJJ', 3, NULL, CAST(:s AS jsonb)), "
                           "('CASE', 'C1', 1, NULL, '{\"a\": \"HS-ESC-CASE\"}'), ('CASE', 'C2', 1, 7, '{}')"),
                   {"s": said})  # fmt: skip
    up(database, engine)
    with engine.connect() as tx:
        assert [tuple(r) for r in tx.execute(KEPT)] == [
            ("C1", 1, 0, ["a"]), ("C2", 1, 7, None), ("HS-ZJJ/2020-09", 3, 0, ["a"]), ("HS-ZJJ/2020-10", 3, 0, ["b"]),
        ]  # fmt: skip
    down(engine)
    with engine.connect() as tx:
        assert [tuple(r) for r in tx.execute(KEPT)][2] == ("HS-ZJJ", 3, 0, ["a", "b"])


def test_alerts_with_acts_are_looked_at_again_and_bad_ratings_get_their_own_time(
    database: str, engine: sa.Engine
) -> None:
    rating, alert = uuid.UUID(int=1), uuid.UUID(int=2)
    rated = {c.name: "" for c in rating_event.c} | dict.fromkeys(
        ("partition", "offset", "received_at", "service_no", "assess_no", "revision", "score"), 1
    ) | {"event_id": rating, "digest": rating, "case_no": "C1", "occurred_at": SEPTEMBER, "entered_at": None,
         "is_default": False}  # fmt: skip
    word = {"alert_id": alert, "alert_seq": 1, "action": "ISSUED", "region": "", "department": "", "case_no": "C1",
            "kind": "BAD_RATING", "colour": "NONE", "summary": "", "issued_at": OCTOBER, "seen_at": 0,
            "evidence": [str(rating)]}  # fmt: skip
    life: dict[str, Any] = {c.name: "" for c in alert_life.c if not c.nullable} | {"dues": {}}
    down(engine, "0007")
    with engine.begin() as tx:
        tx.execute(sa.insert(rating_event), rated)
        tx.execute(sa.insert(alert_inbox), word)
        tx.execute(sa.insert(alert_life), [{**life, "case_no": "C1", "steps": [["e", "signed", 1, "SIGNED", ""]]},
                                           {**life, "case_no": "C2", "steps": []}])  # fmt: skip
        checked = {"scope": "CASE", "partition": 0, "said": {}}
        tx.execute(sa.insert(desk_check), [{**checked, "key": key} for key in ("C1", "C2")])
    up(database, engine)
    with engine.connect() as tx:
        assert tx.execute(sa.select(alert_inbox.c.given_at)).scalar_one() == SEPTEMBER
        checks = tx.execute(sa.select(desk_check.c.key, desk_check.c.next_check_at).order_by(desk_check.c.key))
        assert [tuple(r) for r in checks] == [("C1", 0), ("C2", None)]


def test_bad_ratings_of_void_cases_and_districts_of_townships_are_looked_at_after_the_upgrade(
    database: str, engine: sa.Engine
) -> None:
    cell = {"item_code": "I", "channel": "PC", "score": 5, "rated_on": date(2020, 9, 21), "n": 1, "defaults": 0,
            "events": 1, "received_at": 0, "department": "HS-ZJJ"}  # fmt: skip
    out = {"department": "", "service_no": 0, "assess_no": 0, "changes": 1, "known_at": 7}
    down(engine, "0009")
    with engine.begin() as tx:
        checked = {"scope": "CASE", "partition": 0, "said": {}}
        for case_no, void in (("C1", True), ("C2", False)):
            tx.execute(sa.insert(rating_out).inline().values(**out, case_no=case_no, out=void))
            tx.execute(sa.insert(desk_check).values(**checked, key=case_no))
        tx.execute(sa.insert(rating_cell_merged), [{**cell, "region": r} for r in ("430903", "430903101")])
    up(database, engine)
    with engine.connect() as tx:
        checks = tx.execute(sa.select(desk_check.c.key, desk_check.c.next_check_at).order_by(desk_check.c.key))
        assert [tuple(r) for r in checks] == [("C1", 0), ("C2", None)]
        assert tx.execute(sa.text("SELECT region FROM rollup_dirty")).scalars().all() == ["430903101"]


def test_ratings_of_void_cases_and_excluded_ones_are_looked_at_after_the_upgrade(
    database: str, engine: sa.Engine
) -> None:
    life = {c.name: "" for c in alert_life.c if not c.nullable} | {"dues": {}, "steps": [], "kind": "BAD_RATING"}
    down(engine, "0008")
    with engine.begin() as tx:
        for case_no, status in (("C1", "VOID"), ("C2", "GRANTED")):
            tx.execute(sa.text(
                "INSERT INTO case_state (case_no, partition, region, department, item_code, status, provisional, state,"
                " known_at) VALUES (:case_no, 0, '', '', '', :status, false, '{}', 7)"
            ), {"case_no": case_no, "status": status})  # fmt: skip
        tx.execute(sa.insert(alert_life), [{**life, "case_no": "C3", "out_reason": "appeal_upheld"},
                                           {**life, "case_no": "C4", "out_reason": "rating_corrected"}])  # fmt: skip
    up(database, engine)
    with engine.connect() as tx:
        assert [tuple(r) for r in tx.execute(sa.text("SELECT * FROM rating_out"))] == [("C1", "", 0, 0, True, 1, 7, "")]
        assert sorted(tx.execute(sa.text("SELECT case_no FROM rating_out_news")).scalars()) == ["C1", "C3"]


def test_what_waits_for_the_province_waits_on_beneath_the_release_before(database: str, engine: sa.Engine) -> None:
    waits = {"event_id": uuid.UUID(int=1), "digest": uuid.UUID(int=2), "topic": "rating.upload.v1", "region": "430903",
             "department": "HS-ZJJ", "body": {"projectNo": "C1"}}  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(push_queue), waits)
    down(engine, "0010")
    with engine.connect() as tx:
        assert tx.execute(sa.text("SELECT record_key, occurred_at FROM push_queue")).one() == ("", 0)
        assert tx.execute(sa.text("SELECT count(*) FROM handling")).scalar_one() == 0
    up(database, engine)
    with engine.connect() as tx:
        kept = tx.execute(sa.select(*(push_queue.c[name] for name in waits))).one()
        assert dict(kept._mapping) == waits


def test_what_appeals_decided_before_is_looked_at_again_and_the_release_before_sees_no_decision(
    database: str, engine: sa.Engine
) -> None:
    life: dict[str, Any] = {c.name: "" for c in alert_life.c if not c.nullable} | {"dues": {}, "steps": []}
    word = {"alert_seq": 1, "action": "ISSUED", "region": "", "department": "", "colour": "NONE", "summary": "",
            "issued_at": OCTOBER, "seen_at": 0}  # fmt: skip

    def looked_at() -> list[str]:
        with engine.begin() as tx:
            due = tx.execute(sa.text("SELECT key FROM desk_check WHERE next_check_at = 0 ORDER BY key")).scalars().all()
            tx.execute(sa.text("UPDATE desk_check SET next_check_at = NULL"))
        return list(due)

    down(engine, "0011")
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_life), [{**life, "case_no": "C1", "out_reason": "appeal_upheld"},
                                           {**life, "case_no": "C2", "out_reason": "late_stop"}])  # fmt: skip
        tx.execute(sa.insert(alert_inbox), [
            {**word, "alert_id": uuid.UUID(int=n), "case_no": f"C{n}", "kind": kind}
            for n, kind in ((1, "CARD"), (3, "RULING"))
        ])  # fmt: skip
        checked = {"scope": "CASE", "partition": 0, "said": {}}
        tx.execute(sa.insert(desk_check), [{**checked, "key": key} for key in ("C1", "C2", "C3")])
    up(database, engine)
    assert looked_at() == ["C1"]
    down(engine, "0011")
    assert looked_at() == ["C3"]
    with engine.connect() as tx:
        assert tx.execute(sa.text("SELECT kind FROM alert_inbox")).scalars().all() == ["CARD"]
    up(database, engine)


def test_what_did_not_count_goes_on_not_counting_in_each_region_after_the_upgrade(
    database: str, engine: sa.Engine
) -> None:
    down(engine, "0013")
    out = {"service_no": 1, "assess_no": 1, "out": True, "changes": 3, "known_at": 7, "department": "HS-ZJJ"}
    event = {c.name: "" for c in rating_event.c if not c.nullable} | {
        "department": "HS-ZJJ", "occurred_at": 0, "received_at": 0, "digest": uuid.UUID(int=1), "partition": 0,
        "offset": 0, "service_no": 1, "assess_no": 1, "revision": 0, "score": 1, "is_default": False, "case_no": "C1",
    }  # fmt: skip
    with engine.begin() as tx:
        of_case = {"department": "", "service_no": 0}
        tx.execute(sa.insert(rating_out), [{**out, "case_no": "C1"}, {**out, "case_no": "C2"},
                                           {**out, **of_case, "case_no": "C1"}])  # fmt: skip
        tx.execute(sa.insert(rating_event), [{**event, "region": r, "event_id": uuid.uuid4(), "revision": n}
                                             for n, r in enumerate(("430903", "430903", "430903101"))])  # fmt: skip
    up(database, engine)
    with engine.connect() as tx:
        kept = tx.execute(sa.text("SELECT case_no, region, department, changes FROM rating_out ORDER BY 1, 2, 3"))
        assert [tuple(row) for row in kept] == [
            ("C1", "", "", 3), ("C1", "430903", "HS-ZJJ", 3), ("C1", "430903101", "HS-ZJJ", 3), ("C2", "", "HS-ZJJ", 3)
        ]  # fmt: skip
