"""Two departments publish one version of an item: which one holds does not depend on where the rows lie."""

from __future__ import annotations

import threading
from datetime import date
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.intake.calendar import calendar_row
from connectors.local.process import wait_until
from schemas.topics import CALENDAR, CASE, ITEM
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import explain, indicators, references
from streams.store.applier import apply_batch
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import case_state

pytestmark = pytest.mark.stack
CODE = "11430903MBDEM0138T4000715002000"


def ms(day: int, hour: int) -> int:
    """Epoch milliseconds of an hour of a day of October 2020."""
    return epoch_ms(day_of(date(2020, 10, day)) * DAY_MINUTES + hour * 60)


def item(carrying: Any, at: int, department: str, promise: float, level: str) -> dict[str, Any]:
    """Version 1 of the item as ``department`` publishes it, ``at`` seconds after the beginning."""
    made = carrying.record(
        "item.published", at, item_code=CODE, item_version=1, name="许可", effective_on=date(2004, 1, 1),
        promise_limit=promise, promise_unit_code="1", statutory_limit=20.0, statutory_unit_code="1",
        bundle_codes=["YJS-QYKB"], body_level_code=level,
    )  # fmt: skip
    return {**made, "department": department}


@pytest.mark.parametrize("turned", [False, True], ids=["in their order", "turned round"])
def test_of_two_that_publish_one_version_the_last_holds_wherever_its_row_lies(
    engine: sa.Engine, carrying: Any, turned: bool
) -> None:
    told = [item(carrying, 1, "HS-ZRZYJ", 10.0, "4"), item(carrying, 2, "HS-ZJJ", 5.0, "5")]
    rows = told[::-1] if turned else told
    year = {**calendar_row(2020, occurred_at=1, department="HS-XZSPJ"), "region": "430903", "received_at": 1}
    of_case = {"case_no": "C-1", "event_no": 1, "item_code": CODE, "result_set": "", "result_code": ""}
    heard = [
        {**carrying.record(f"case.{kind}", 3, **of_case), "occurred_at": ms(day, 10)}
        for kind, day in (("accepted", 12), ("decided", 16))
    ]
    apply_batch(engine, ScheduleProjection(), carrying.log(CALENDAR, [year]))
    for one in carrying.log(ITEM, rows):
        apply_batch(engine, DefineProjection(), [one])
    apply_batch(engine, JudgeProjection(), carrying.log(CASE, heard))

    with engine.connect() as tx:
        assert tx.execute(sa.select(case_state.c.due_at)).scalar_one() == ms(19, 17)  # five days, not ten
        (planned,) = explain.plan(tx, "430903", "YJS-QYKB", day_of(date(2020, 10, 12)))
        (counted,) = indicators.items_in_force(tx)
        report = indicators.report(tx, indicators.Chosen(by=("level",)))
    assert planned.promise.amount == 5.0
    assert (counted.department, counted.promise, counted.level) == ("HS-ZJJ", 5.0, "5")
    assert list(report.groups) == [("5",)]


# --- who reads and who changes ---------------------------------------------------------------------------------------

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = :lock"


def test_who_wants_to_change_references_is_overtaken_by_no_judge_that_comes_later(engine: sa.Engine) -> None:
    """Else one judge after another would share the lock, and a calendar might never be applied."""
    order: list[str] = []

    def waiting(looking: sa.Connection, count: int) -> bool:
        return bool(looking.execute(sa.text(WAITING), {"lock": references.LOCK}).scalar_one() == count)

    def change() -> None:
        with engine.begin() as tx:
            references.changed(tx, references.CALENDAR)
            order.append("changed")

    def judge() -> None:
        with engine.begin() as tx:
            epochs.append(references.held(tx)[references.CALENDAR])
            order.append("judged")

    epochs: list[int] = []
    with engine.begin() as tx:
        references.held(tx)  # the rows are there
    threads = [threading.Thread(target=change), threading.Thread(target=judge)]
    with engine.begin() as tx, engine.connect() as looking:
        first = references.held(tx)[references.CALENDAR]
        for n, thread in enumerate(threads, 1):
            thread.start()
            assert wait_until(partial(waiting, looking, n), 10)
    for thread in threads:
        thread.join(10)
    assert (order, epochs) == (["changed", "judged"], [first + 1])


def test_who_only_reads_references_holds_nobody_up(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        references.changed(tx, references.CALENDAR)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as report:
        assert references.epochs(report)[references.CALENDAR] == 1
        with engine.begin() as tx:
            tx.exec_driver_sql("SET LOCAL lock_timeout = '300ms'")
            references.changed(tx, references.CALENDAR)
        assert references.epochs(report)[references.CALENDAR] == 1
