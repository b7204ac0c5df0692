"""Any order, duplicates, any cut into chunks: the same tables, where events are folded as a set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.topics import CALENDAR, HANDLING, ITEM, LICENCE, RESOURCE
from streams.store import applier
from streams.store.catalogue import CatalogueProjection
from streams.store.define import DefineProjection
from streams.store.follow import FollowProjection
from streams.store.index import IndexProjection
from streams.store.projection import Carried
from streams.store.schedule import ScheduleProjection
from streams.store.tables import STATE_TABLES, stored

pytestmark = pytest.mark.stack
PROJECTIONS = {
    p.topic: p
    for p in (
        IndexProjection(), CatalogueProjection(), FollowProjection(),
        ScheduleProjection(), DefineProjection(),
    )
}  # fmt: skip


def licences(make: Any) -> list[dict[str, Any]]:
    base = {
        "family": "T/I/1", "licence_id": "1.2", "type_code": "T", "issuer_code": "I", "licence_no": "1",
        "status_set": "ministry.licence-status", "holder_id": "H1", "valid_to_on": date(2030, 1, 1),
    }  # fmt: skip
    stock = {**base, "origin_code": "STOCK", "holder_id": "H2"}
    new = {**base, "origin_code": "INCREMENT"}
    return [
        make("licence.issued", 1, **new, licence_version=1, status_code="01"),
        make("licence.suspended", 2, **new, licence_version=1, status_code="02"),
        make("licence.restored", 3, **new, licence_version=1, status_code="01"),
        make("licence.changed", 4, **new, licence_version=2, status_code="01"),
        make("licence.revoked", 5, **new, licence_version=2, status_code="03"),
        make("licence.backfilled", 6, **stock, licence_version=1, status_code="01"),
        make("licence.issued", 2, **{**new, "family": "T/I/2", "licence_no": "2"}, licence_version=1,
             status_code="01"),
    ]  # fmt: skip


def resources(make: Any) -> list[dict[str, Any]]:
    code = {"resource_code": "306012/000045"}
    return [
        make("resource.registered", 1, **code, title="水质", update_cycle_code="DAILY"),
        make("resource.updated", 5, **code, title="水质监测", record_count=9),
        make("resource.heartbeat", 9, **code, record_count=0),
        make("resource.updated", 2, **code, department="HS-XZSPJ", summary="全区水质"),
        make("resource.updated", 4, **code, department="HS-JTJ", title="路况", record_count=1),
        make("resource.withdrawn", 9, **code, department="HS-JTJ"),
        make("resource.objection_raised", 10, **code, request_no="Q1"),
        make("resource.objection_closed", 11, **code, request_no="Q1"),
        make("resource.objection_raised", 12, **code, request_no="Q2"),
    ]


def handlings(make: Any) -> list[dict[str, Any]]:
    both = {"case_no": "C1", "alert_id": "A1", "event_no": 1}
    return [
        make("handling.signed", 1, **both),
        make("handling.rectified", 3, **both),
        make("handling.signed", 2, **{**both, "event_no": 2}),
        make("handling.closed", 4, **both),
        make("handling.signed", 2, **{**both, "alert_id": "A2"}),
    ]


def references(make: Any) -> list[tuple[Any, dict[str, Any]]]:
    calendar = {
        "source": "国办发明电",
        "days": [{"day": date(2020, 1, 24), "working": False, "name": "春节"}],
    }
    item = {
        "item_code": "I1", "name": "施工许可", "promise_limit": 5.0, "promise_unit_code": "1",
        "effective_on": date(2020, 1, 1),
    }  # fmt: skip
    return [
        (
            CALENDAR,
            make("calendar.published", n, year=2020, revision=n, calendar_version=f"2020-r{n}", **calendar),
        )
        for n in (1, 2)
    ] + [(ITEM, make("item.published", n, item_version=n, **item)) for n in (1, 2)]


def everything(carrying: Any) -> list[tuple[Any, dict[str, Any]]]:
    """All events with their topics."""
    make = carrying.record
    return [
        *((LICENCE, r) for r in licences(make)),
        *((RESOURCE, r) for r in resources(make)),
        *((HANDLING, r) for r in handlings(make)),
        *references(make),
    ]


def replay(
    engine: sa.Engine, carrying: Any, told: Sequence[tuple[Any, dict[str, Any]]], cuts: set[int]
) -> None:
    """Into an empty database: ``told`` in this order, a new transaction wherever ``cuts`` says."""
    with engine.begin() as tx:
        names = ", ".join(f'"{t.name}"' for t in stored(STATE_TABLES))
        tx.execute(sa.text(f"TRUNCATE {names}, cursor, outbox"))
    offsets: dict[Any, int] = {}
    chunk: list[Carried] = []
    for place, (topic, record) in enumerate(told):
        if chunk and (chunk[0].topic is not topic or place in cuts):
            applier.apply_batch(engine, PROJECTIONS[chunk[0].topic], chunk)
            chunk = []
        chunk.append(carrying.carry(topic, record, offsets.get(topic, 0)))
        offsets[topic] = offsets.get(topic, 0) + 1
    applier.apply_batch(engine, PROJECTIONS[chunk[0].topic], chunk)


def test_any_order_with_duplicates_and_cuts_gives_the_same_tables(
    engine: sa.Engine, carrying: Any, dump: Any
) -> None:
    events = everything(carrying)
    replay(engine, carrying, events, set())
    expected = dump(engine, STATE_TABLES)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        twice = data.draw(st.lists(st.sampled_from(events), max_size=4))
        told = data.draw(st.permutations([*events, *twice]))
        cuts = data.draw(st.sets(st.integers(0, len(told))))
        replay(engine, carrying, told, cuts)
        assert dump(engine, STATE_TABLES) == expected

    check()


def test_the_tables_that_are_compared_are_not_empty(engine: sa.Engine, carrying: Any, dump: Any) -> None:
    replay(engine, carrying, everything(carrying), set())
    filled = {row[0] for row in dump(engine, STATE_TABLES)}
    assert {
        "licence",
        "licence_event",
        "directory_entry",
        "handling_event",
        "calendar_event",
        "item_event",
    } <= filled
