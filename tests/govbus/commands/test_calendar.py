"""``govbus calendar``: narrative 6 from a CSV to the list of what it moved, on a real database."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.intake.calendar import calendar_row, calendar_rows
from govbus.cli import build
from schemas import codec, envelope
from schemas.topics import CALENDAR, Topic
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import case_state
from streams.store.tables import outbox as outbox_table

pytestmark = pytest.mark.stack
CODE = "11430903MBDEM0138T4000715002000"
NOTICE = """from,to,kind,name
2020-01-01,,休,元旦
2020-01-24,2020-02-02,休,春节
2020-01-19,,班,春节
2020-04-04,2020-04-06,休,清明节
2020-05-01,2020-05-05,休,劳动节
2020-04-26,,班,劳动节
2020-05-09,,班,劳动节
2020-06-25,2020-06-27,休,端午节
2020-06-28,,班,端午节
2020-10-01,2020-10-08,休,国庆节
2020-09-27,,班,国庆节
2020-10-10,,班,国庆节
"""


def ms(day: date, hour: int, minute: int = 0) -> int:
    return epoch_ms(day_of(day) * DAY_MINUTES + hour * 60 + minute)


def carry(topic: Topic, offset: int, value: bytes) -> Carried:
    record = codec.decode(value, topic)
    return Carried(topic, 0, offset, str(record[topic.key]).encode(), value, tuple(envelope.headers(topic, record)))


def put(engine: sa.Engine, projection: Projection, offset: int, *records: dict[str, Any]) -> None:
    topic = projection.topic
    whole = [{**r, "event_id": str(envelope.event_id(topic, r))} for r in records]
    carried = [carry(topic, offset + n, codec.encode(topic, r)) for n, r in enumerate(whole)]
    applier.apply_batch(engine, projection, carried)


def announced() -> dict[str, Any]:
    """2020 before the emergency notice."""
    row = calendar_row(2020, occurred_at=1, department="HS-XZSPJ")
    days = [d for d in row["days"] if d["day"] != date(2020, 1, 31)]
    return {**row, "days": [*days, {"day": date(2020, 2, 1), "working": True, "name": "春节"}], "received_at": 1}


def case(kind: str, number: str, at: int) -> dict[str, Any]:
    return {"event_type": f"case.{kind}", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": at,
            "received_at": at, "case_no": number, "event_no": 1, "item_code": CODE}  # fmt: skip


@pytest.fixture
def judged(engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch) -> JudgeProjection:
    """A case accepted on 2020-01-23, decided on 02-06, and one of March, judged by the calendar as announced."""
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    item = {"event_type": "item.published", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": 1,
            "received_at": 1, "item_code": CODE, "item_version": 1, "name": "不动产登记", "promise_limit": 5.0,
            "promise_unit_code": "1", "effective_on": date(2004, 1, 1)}  # fmt: skip
    put(engine, ScheduleProjection(), 0, announced())
    put(engine, DefineProjection(), 0, item)
    judge = JudgeProjection()
    put(engine, judge, 0, case("accepted", "JANUARY", ms(date(2020, 1, 23), 15)))
    tick(engine, judge, ms(date(2020, 2, 6), 9))
    put(engine, judge, 1, case("decided", "JANUARY", ms(date(2020, 2, 6), 10)))
    put(engine, judge, 2, case("accepted", "MARCH", ms(date(2020, 3, 2), 15)))
    tick(engine, judge, ms(date(2020, 4, 1), 9))
    return judge


def tick(engine: sa.Engine, judge: JudgeProjection, horizon: int) -> None:
    while applier.tick(engine, judge, 0, horizon):
        pass


def run(*args: str) -> tuple[int, Any]:
    result = CliRunner().invoke(build(), ["calendar", *args, "--json"], catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def load(tmp_path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    file = tmp_path / "2020.csv"
    file.write_text(NOTICE, "utf-8")
    return run("load", str(file), "--year", "2020", "--dept", "区行政审批局", *more)


def test_a_notice_typed_as_csv_becomes_the_next_revision_and_its_effects_are_listed(
    engine: sa.Engine, judged: JudgeProjection, tmp_path: Path
) -> None:
    assert load(tmp_path, "--dry-run")[1]["outcome"] == "valid"
    code, report = load(tmp_path)
    assert (code, report["calendar_version"], report["outcome"]) == (0, "2020-r2", "new")
    query = sa.select(outbox_table.c.value).where(outbox_table.c.topic == CALENDAR.name)
    with engine.connect() as tx:
        value = bytes(tx.execute(query).scalar_one())
    applier.apply_batch(engine, ScheduleProjection(), [carry(CALENDAR, 1, value)])
    stale = sa.select(case_state.c.case_no).where(case_state.c.next_check_at <= 0)
    with engine.connect() as tx:
        assert list(tx.execute(stale).scalars()) == ["JANUARY"]  # March counts no day that was changed
    assert run("effects", "2020-r2")[0] == 1  # not judged again yet

    tick(engine, judged, codec.decode(value, CALENDAR)["received_at"] + 1)
    code, report = run("effects", "2020-r2")
    assert (code, report["pending"], report["looked_at"]) == (0, 0, 1)
    (clock,) = report["clocks"]
    assert (clock["case_no"], clock["clock"], clock["open"]) == ("JANUARY", "handling", False)
    assert clock["due_before"] == "2020-02-05T17:00:00+08:00"
    assert clock["due_after"] == "2020-02-07T17:00:00+08:00"
    told = [(c["colour"], c["issued_at"][:16], c["calendar_version"], c["revoked_reason"]) for c in report["cards"]]
    assert told == [
        ("YELLOW", "2020-02-04T17:00", "2020-r1", "calendar_revised"),
        ("RED", "2020-02-05T17:01", "2020-r1", "calendar_revised"),
    ]


def test_a_file_that_says_nothing_new_is_not_published_again(
    engine: sa.Engine, judged: JudgeProjection, tmp_path: Path
) -> None:
    put(engine, ScheduleProjection(), 1, {**calendar_row(2020, occurred_at=1, department="HS-XZSPJ", revision=2),
        "received_at": 2})  # fmt: skip
    assert judged
    file = tmp_path / "2020.csv"
    file.write_text(NOTICE, "utf-8")
    result = CliRunner().invoke(build(), ["calendar", "load", str(file), "--year", "2020", "--dept", "HS-XZSPJ"])
    assert result.exit_code != 0
    with engine.connect() as tx:
        assert not list(tx.execute(sa.select(outbox_table.c.seq).where(outbox_table.c.topic == CALENDAR.name)))


def published(engine: sa.Engine) -> list[dict[str, Any]]:
    query = sa.select(outbox_table.c.value).where(outbox_table.c.topic == CALENDAR.name).order_by(outbox_table.c.seq)
    with engine.connect() as tx:
        return [codec.decode(bytes(value), CALENDAR) for value in tx.execute(query).scalars()]


def test_a_new_installation_loads_the_years_that_are_shipped_once_and_keeps_what_it_knows(
    engine: sa.Engine, judged: JudgeProjection
) -> None:
    assert judged  # 2020 is known, as announced: the district's word stands
    shipped = ("load", "--shipped", "--dept", "HS-XZSPJ")
    code, reports = run(*shipped, "--dry-run")
    assert (code, {r["outcome"] for r in reports}, published(engine)) == (0, {"valid", "kept"}, [])
    code, reports = run(*shipped)
    outcomes = {r["calendar_version"]: r["outcome"] for r in reports}
    assert (code, len(outcomes), outcomes.pop("2020-r1")) == (0, 23, "kept")
    assert set(outcomes.values()) == {"new"}
    told = published(engine)
    assert len(told) == 22
    (of_2026,) = (c for c in told if c["year"] == 2026)
    assert (of_2026["region"], of_2026["department"], of_2026["calendar_version"]) == ("000000", "HS-XZSPJ", "2026-r1")
    assert of_2026["source"].startswith("chinesecalendar 1.11.0")
    assert {str(d["day"]): d["working"] for d in of_2026["days"]}["2026-10-10"] is True

    code, reports = run(*shipped)  # before any worker applied them
    assert (code, {r["outcome"] for r in reports}) == (0, {"same", "kept"})
    applier.apply_batch(engine, ScheduleProjection(), [carry(CALENDAR, 1 + n, codec.encode(CALENDAR, c))
                                                       for n, c in enumerate(told)])  # fmt: skip
    code, (report,) = run(*shipped, "--year", "2026")  # after
    assert (code, report["outcome"], len(published(engine))) == (0, "same", 22)


@pytest.mark.usefixtures("engine")
def test_what_was_published_otherwise_and_is_not_applied_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = ("load", "--shipped", "--dept", "HS-XZSPJ", "--year", "2026")
    with monkeypatch.context() as earlier:
        earlier.setattr("connectors.intake.calendar.AS_OF", 1_700_000_000_000)
        earlier.setattr("connectors.intake.calendar.calendar_rows", lambda *a, real=calendar_rows, **k: [
            {**row, "days": row["days"][1:]} for row in real(*a, **k)])  # fmt: skip
        assert run(*shipped)[0] == 0
    code, (report,) = run(*shipped)
    assert (code, report["outcome"]) == (0, "kept")


def test_a_file_and_the_shipped_years_are_not_mixed_and_no_other_year_is_shipped() -> None:
    for wrong in (["--shipped", "2027.csv", "--year", "2027"], [], ["2027.csv"], ["--shipped", "--year", "2027"]):
        assert CliRunner().invoke(build(), ["calendar", "load", *wrong, "--dept", "HS-XZSPJ"]).exit_code == 2, wrong


def test_an_unknown_version_names_those_that_exist(judged: JudgeProjection) -> None:
    assert judged
    result = CliRunner().invoke(build(), ["calendar", "effects", "2031-r1"])
    assert result.exit_code != 0
