"""``govbus clock`` as people and scripts call it."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.intake.calendar import calendar_row
from govbus.cli import build
from schemas import codec, envelope
from schemas.errors import Rejected
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection

SPECIAL = "2025-03-10T10:00/2025-03-20T15:00"


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["clock", *args])
    return result.exit_code, result.output


def test_clock_prints_the_promised_keys_as_json() -> None:
    code, out = run("--accepted", "2020-09-25T16:50", "--limit", "0.5", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["due"] == "2020-09-27T13:20:00+08:00"
    assert report["yellow_at"] == "2020-09-27T11:38:00+08:00"
    assert (report["provisional"], report["counted_minutes"]) == (False, 210)
    assert report["days"] == [{"day": "2020-09-25", "minutes": 10}, {"day": "2020-09-27", "minutes": 200}]


def test_clock_takes_pauses_extensions_and_zones() -> None:
    accepted = ("--accepted", "2025-03-03T01:30+00:00", "--limit", "20", "--json")
    assert json.loads(run(*accepted, "--pause", SPECIAL)[1])["due"] == "2025-04-14T14:00:00+08:00"
    assert json.loads(run(*accepted, "--extend", "10")[1])["due"] == "2025-04-15T17:00:00+08:00"
    assert json.loads(run(*accepted, "--pause", "2025-03-10T10:00")[1])["due"] is None


def test_clock_tells_people_in_chinese() -> None:
    code, out = run("--accepted", "2026-12-14 10:00", "--limit", "20")
    assert code == 0
    assert "2027-01-12 17:00" in out
    assert "暂定" in out


def test_clock_refuses_what_it_cannot_read() -> None:
    assert run("--accepted", "yesterday", "--limit", "5")[0] == 2
    assert run("--accepted", "2020-09-25T16:50", "--limit", "5", "--unit", "fortnight")[0] == 2
    assert run("--accepted", "2020-09-25T16:50", "--limit", "5", "--pause", "2020-09-26/2020-09-25")[0] == 2


@pytest.mark.parametrize("accepted", ["0001-01-01", "1899-12-31T23:59", "9999-12-31T23:59-14:00"])
def test_clock_refuses_a_year_in_which_nothing_happens(accepted: str) -> None:
    code, out = run("--accepted", accepted, "--limit", "5")
    assert (code, "1900 to 9999" in out) == (2, True)
    assert run("--accepted", "2020-01-01", "--limit", "5", "--pause", f"{accepted}/2020-01-02")[0] == 2


def test_clock_knows_the_limits_that_the_law_gives() -> None:
    answer = json.loads(run("--kind", "acceptance", "--accepted", "2020-09-24T16:00", "--json")[1])
    assert (answer["due"], answer["clock"], answer["limit"]) == ("2020-09-30T17:00:00+08:00", "acceptance", 5.0)
    licence = json.loads(run("--kind", "delivery", "--accepted", "2020-10-14T10:00", "--json")[1])
    assert (licence["due"], licence["yellow_at"]) == ("2020-10-28T17:00:00+08:00", "2020-10-26T17:00:00+08:00")
    assert run("--kind", "group", "--accepted", "2020-10-14T10:00")[0] == 2  # which limit?
    assert run("--kind", "nap", "--accepted", "2020-10-14T10:00")[0] == 2


# --- what was applied

CODE = "11430903MBDEM0138T4000115002000"


def put(engine: sa.Engine, projection: Projection, *records: dict[str, Any]) -> None:
    carried = []
    for offset, record in enumerate(records):
        common = {"region": "430903", "department": "HS-ZRZYJ", "received_at": record["occurred_at"]}
        made = {**common, **record}
        whole = {**made, "event_id": str(envelope.event_id(projection.topic, made))}
        value = codec.encode(projection.topic, whole)
        headers = tuple(envelope.headers(projection.topic, codec.decode(value, projection.topic)))
        key = str(whole[projection.topic.key]).encode()
        carried.append(Carried(projection.topic, 0, offset, key, value, headers))
    applier.apply_batch(engine, projection, carried)


def case(kind: str, day: int, hour: int, **more: Any) -> dict[str, Any]:
    at = epoch_ms(day_of(date(2020, 10, day)) * DAY_MINUTES + hour * 60)
    known = {"event_type": f"case.{kind}", "occurred_at": at, "case_no": "C-1", "event_no": 1, "item_code": CODE}
    return {**known, "project_code": "P-1", **more}


@pytest.fixture
def applied(engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A licence with steps, of a project, paused for a day, decided a day late; judged to the end of 2020."""
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    put(engine, ScheduleProjection(), calendar_row(2020, occurred_at=1, department="HS-ZRZYJ"))
    put(engine, DefineProjection(), {
        "event_type": "item.published", "occurred_at": 1, "item_code": CODE, "item_version": 1, "name": "许可",
        "promise_limit": 5.0, "promise_unit_code": "1", "limit_rule": "R6-5", "item_type_code": "01",
        "effective_on": date(2004, 1, 1), "steps": [{"step_name": "审核", "step_limit": 2.0, "step_unit_code": "1"}],
    })  # fmt: skip
    judge, pause = JudgeProjection(), {"special_kind_code": "EXPERT"}
    granted = {"result_set": "province.result-newer", "result_code": "0"}
    put(engine, judge, case("accepted", 12, 10), case("special_started", 14, 9, **pause),
        case("special_ended", 15, 9, **pause), case("decided", 21, 10, **granted))  # fmt: skip
    for _ in range(3):
        while applier.tick(engine, judge, 0, epoch_ms(day_of(date(2020, 12, 31)) * DAY_MINUTES)):
            pass


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_clock_explains_every_clock_of_a_case_and_the_cards_it_led_to() -> None:
    code, out = run("--case", "C-1", "--json")
    report = json.loads(out)
    lines = {line["clock"]: line for line in report["clocks"]}
    assert (code, report["status"], list(lines)) == (0, "GRANTED", ["handling", "step", "delivery"])
    handling = lines["handling"]
    assert (handling["due"], handling["on_time"]) == ("2020-10-20T17:00:00+08:00", False)
    assert handling["pauses"] == [["2020-10-14T09:00:00+08:00", "2020-10-15T09:00:00+08:00"]]
    assert [d["day"] for d in handling["days"]] == [f"2020-10-{d}" for d in (13, 15, 16, 19, 20)]
    assert (lines["step"]["step"], lines["step"]["due"]) == ("审核", "2020-10-15T17:00:00+08:00")
    assert lines["delivery"]["due"] == "2020-11-04T17:00:00+08:00"
    rules = ["HS-CARD-STEP", "HS-CARD-Y", "HS-CARD-R", "HS-CARD-DELIVERY-Y", "HS-CARD-DELIVERY-R"]
    assert [c["rule_id"] for c in report["cards"]] == rules
    assert report["cards"][2]["issued_at"] == "2020-10-20T17:01:00+08:00"


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_a_case_that_nobody_accepted_has_the_clock_of_the_answer_until_silence_accepts_it(engine: sa.Engine) -> None:
    judge, below = JudgeProjection(), [case("submitted", 1, 9, case_no=f"C-{n}") for n in range(4)]
    put(engine, judge, *below, case("submitted", 12, 9, case_no="C-9"))
    for day, status, clock, due, limit in (
        (13, "SUBMITTED", "acceptance", "2020-10-19T17:00:00+08:00", 5.0),
        (20, "ACCEPTED", "handling", "2020-10-19T17:00:00+08:00", 5.0),
    ):
        while applier.tick(engine, judge, 0, epoch_ms(day_of(date(2020, 10, day)) * DAY_MINUTES)):
            pass
        report = json.loads(run("--case", "C-9", "--json")[1])
        line = report["clocks"][0]
        assert (report["status"], line["clock"], line["due"], line["limit"]) == (status, clock, due, limit)
        assert (line["accepted"], line["stopped"]) == ("2020-10-12T09:00:00+08:00", None)
        assert len(report["clocks"]) == (1 if clock == "acceptance" else 2)
    assert "受理答复" not in run("--case", "C-9")[1]


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_clock_explains_the_clock_of_a_project_with_its_parts() -> None:
    report = json.loads(run("--group", "project/430903/P-1", "--json")[1])
    assert (report["status"], report["limit_rule"], [p["case_no"] for p in report["parts"]]) == (
        "AFTER", "R6-5", ["C-1"],
    )  # fmt: skip
    (line,) = report["clocks"]
    assert (line["due"], line["on_time"], line["limit"]) == (None, True, 40.0)  # nothing runs any more: nothing is due


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_the_parts_of_a_joint_application_are_known_before_and_while_they_are_applied_for(engine: sa.Engine) -> None:
    def item(code: str, name: str, **more: Any) -> dict[str, Any]:
        limit = {"promise_limit": 0.5, "promise_unit_code": "1", "effective_on": date(2004, 1, 1)}
        return {"event_type": "item.published", "occurred_at": 2, "item_code": code, "item_version": 1, "name": name,
                "bundle_codes": ["YJS-QYKB"], **limit, **more}  # fmt: skip

    registration, seal = CODE[:-3] + "001", CODE[:-3] + "002"
    other = item(CODE[:-3] + "003", "异地", region="430902")
    told = [item(registration, "企业设立登记"), item(seal, "公章刻制", department="HS-GAFJ"), other]
    put(engine, DefineProjection(), {**item(CODE, "许可"), "bundle_codes": []}, *told)  # the first: below the cursor

    before = json.loads(run("--plan", "430903/YJS-QYKB", "--json")[1])
    assert [(p["name"], p["department"], p["limit"]) for p in before["planned"]] == [
        ("企业设立登记", "HS-ZRZYJ", 0.5), ("公章刻制", "HS-GAFJ", 0.5),
    ]  # fmt: skip
    assert "未申请 公章刻制 HS-GAFJ 承诺 0.5 个工作日" in run("--plan", "430903/YJS-QYKB")[1]

    judge = JudgeProjection()
    which = {"bundle_code": "YJS-QYKB", "bundle_no": "N-1", "project_code": ""}
    part = case("accepted", 12, 9, case_no="C-9", **which, item_code=registration + "01")  # its handling item
    put(engine, judge, *[case("submitted", 1, 9, case_no=f"C-{n}") for n in range(4)], part)
    while applier.tick(engine, judge, 0, part["occurred_at"]):
        pass
    during = json.loads(run("--group", "bundle/430903/N-1", "--json")[1])
    assert (during["status"], [p["case_no"] for p in during["parts"]]) == ("DURING", ["C-9"])
    assert [p["item_code"] for p in during["planned"]] == [seal]
    assert "未申请 公章刻制" in run("--group", "bundle/430903/N-1")[1]


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_a_plan_that_no_item_knows_is_refused_with_its_mend() -> None:
    refused = CliRunner().invoke(build(), ["clock", "--plan", "430903/YJS-NONE"]).exception
    assert isinstance(refused, Rejected)
    assert "bundle_codes" in refused.faults[0].mend


@pytest.mark.stack
@pytest.mark.usefixtures("applied")
def test_clock_tells_people_of_a_case_and_refuses_one_that_is_not_known() -> None:
    code, out = run("--case", "C-1")
    assert code == 0
    assert "承诺时限" in out
    assert "特别程序 2020-10-14 09:00 至 2020-10-15 09:00，不计入" in out
    assert run("--case", "C-2")[0] != 0
