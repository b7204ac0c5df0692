"""What an alert rests on, opened: every id of its evidence by what happened then, and nobody's name or number."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.intake.calendar import calendar_rows
from consumers.alerts.inbox import Inbox
from govbus.cli import build
from govbus.evidence import SHOWN, WRITTEN
from schemas.contracts import personal_fields
from schemas.topics import ALERT, CALENDAR, CASE, HANDLING, ITEM, RATING, TOPICS
from streams.store import outbox
from streams.store.applier import apply_batch
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Projection
from streams.store.schedule import ScheduleProjection
from streams.store.steps import decode_rows
from streams.store.tables import alert_inbox, handling_event
from streams.store.tally import TallyProjection

CODE, CASE_NO = "11430903MBDEM0138T4000715002000", "11430903MBDEM0138T4000715002000202009210001"
PERSONAL = ("王小明", "430903199001011234", "欧阳锋", "13812345678")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp() * 1000)


def case(kind: str, at: str, **more: Any) -> dict[str, Any]:
    return {
        "event_type": f"case.{kind}", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": ms(at),
        "received_at": ms(at), "event_no": 1, "case_no": CASE_NO, "item_code": CODE, "applicant_name": "王小明",
        "applicant_id": "430903199001011234", "handler_name": "欧阳锋", **more,
    }  # fmt: skip


REFERENCES: Mapping[Any, Sequence[Mapping[str, Any]]] = {
    CALENDAR: [{**row, "received_at": 1} for row in calendar_rows(2019, 2021, occurred_at=1, department="HS-XZSPJ")],
    ITEM: [{
        "event_type": "item.published", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": 1,
        "received_at": 1, "item_code": CODE, "item_version": 1, "name": "不动产登记", "promise_limit": 1.0,
        "promise_unit_code": "1",
        "statutory_limit": 5.0, "statutory_unit_code": "1", "effective_on": date(2004, 1, 1),
    }],
}  # fmt: skip
LATE = [
    case("accepted", "2020-09-21 10:00"),
    case("special_started", "2020-09-21 11:00", special_kind_code="EXPERT", special_name="专家评审",
         reason="请王小明（13812345678）到场，欧阳锋主持"),
    case("special_ended", "2020-09-21 15:00", special_kind_code="EXPERT", special_name="专家评审"),
    case("decided", "2020-10-15 10:00"),
]  # fmt: skip


def shown(alert_id: Any, *options: str) -> tuple[int, str]:
    told = CliRunner().invoke(build(), ["alerts", "evidence", str(alert_id), *options])
    return told.exit_code, told.output


@pytest.fixture
def desk(line: Any, make_rating: Any, monkeypatch: pytest.MonkeyPatch) -> list[sa.Row[Any]]:
    """The alerts of a late case and of a bad rating, published, carried and judged as they are in production."""
    monkeypatch.setenv("GOVBUS_KAFKA", line.kafka)
    monkeypatch.setenv("GOVBUS_DATABASE_URL", line.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COLUMNS", "400")
    for topic, records in REFERENCES.items():
        line.publish(topic, records)
    line.publish(CASE, LATE)
    bad = {"comment": "王小明的态度差，电话13812345678", "rater_name": "王小明", "anonymous": False}
    line.publish(RATING, [make_rating("c2", "1", **bad)])
    line.relay()
    projections: tuple[Projection, ...] = (
        ScheduleProjection(), DefineProjection(), JudgeProjection(), TallyProjection(upload=False)
    )  # fmt: skip
    for projection in projections:
        emptied = dict.fromkeys(range(projection.topic.partitions), 0)  # what earlier tests left before is gone
        apply_batch(line.engine, projection, line.carried(projection.topic), since=emptied)
    line.relay()
    events, refused = decode_rows(line.carried(ALERT))
    assert not refused
    with line.engine.begin() as tx:
        Inbox().apply(tx, events)
        return list(tx.execute(sa.select(alert_inbox).order_by(alert_inbox.c.issued_at)))


@pytest.mark.stack
def test_every_id_of_a_cards_and_a_bad_ratings_evidence_opens_and_names_nobody(desk: list[sa.Row[Any]]) -> None:
    assert {(row.kind, row.colour) for row in desk} >= {("CARD", "YELLOW"), ("CARD", "RED"), ("BAD_RATING", "NONE")}
    for row in desk:
        code, said = shown(row.alert_id, "--json")
        told = [json.loads(one) for one in said.splitlines()]
        assert (code, sorted(one["event_id"] for one in told)) == (0, sorted(row.evidence))
        assert all(one["receipt"].startswith(f"{one['event_id']}.") for one in told)
        assert row.evidence != []
        for text in (said, shown(row.alert_id)[1]):
            assert [personal for personal in PERSONAL if personal in text] == []


@pytest.mark.stack
def test_the_evidence_of_a_red_card_reads_in_the_order_in_which_it_happened(desk: list[sa.Row[Any]]) -> None:
    red = next(row for row in desk if row.colour == "RED")
    lines = shown(red.alert_id)[1].splitlines()
    ids = [str(outbox.row(CASE, record).event_id) for record in LATE]
    heads = [
        f"2020-09-21 10:00:00 {ids[0]} service.case.v1 受理 区自然资源局 事项 {CODE} 回执 {ids[0]}.",
        f"2020-09-21 11:00:00 {ids[1]} service.case.v1 特别程序开始 区自然资源局 事项 {CODE} 特别程序种类 专家评审 "
        f"特别程序 专家评审 理由 请【姓名】（【手机号】）到场，【姓名】主持 回执 {ids[1]}.",
        f"2020-09-21 15:00:00 {ids[2]} service.case.v1 特别程序结束 区自然资源局 ",
    ]  # it fell due before the decision, on which it does not rest
    assert len(lines) == len(heads), lines
    assert [line.startswith(head) for line, head in zip(lines, heads, strict=True)] == [True] * 3, lines


@pytest.mark.stack
def test_a_bad_ratings_text_is_shown_as_it_is_published(desk: list[sa.Row[Any]]) -> None:
    (bad,) = [row for row in desk if row.kind == "BAD_RATING"]
    (told,) = [json.loads(one) for one in shown(bad.alert_id, "--json")[1].splitlines()]
    assert (told["topic"], told["what"], told["occurred_at"]) == (RATING.name, "评价", "2020-10-09T15:20:00+08:00")
    assert told["content"] == {
        "item_code": "11430903MBDEM0138T4000715002000", "satisfaction_code": "非常不满意",
        "channel_code": "政务大厅平板(评价器)", "comment": "【姓名】的态度差，电话【手机号】",
    }  # fmt: skip


@pytest.mark.stack
def test_an_escalation_shows_its_cards_an_act_of_no_outbox_is_found_and_what_is_nowhere_is_said(
    engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "400")
    first, second, escalation, ruling, act, lost = (str(uuid.UUID(int=n)) for n in range(1, 7))
    at = ms("2020-09-21 11:00")
    alert = {"alert_seq": 1, "region": "430903", "department": "HS-ZJJ", "action": "ISSUED", "case_no": "c1",
             "kind": "CARD", "colour": "RED", "summary": "红牌：办件 c1", "issued_at": at, "seen_at": at,
             "known_at": at, "evidence": []}  # fmt: skip
    leaders = {"department": "HS-LDXZ", "kind": "ESCALATION", "evidence": [second, first]}
    decided = {"kind": "RULING", "colour": "NONE", "evidence": [first, act, lost, "no id"]}
    kept = {"event_type": "handling.revoked", "region": "430903", "department": "HS-XZSPJ", "case_no": "c1",
            "occurred_at": at + 60_000, "received_at": at + 60_000}  # fmt: skip
    record = {**kept, "alert_id": first, "note": "王小明的申诉成立", "actor_name": "王小明", "verify_result_code": ""}
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_inbox), [
            {**alert, "alert_id": first}, {**alert, "alert_id": second, "issued_at": at + 1_000},
            {**alert, **leaders, "alert_id": escalation}, {**alert, **decided, "alert_id": ruling},
        ])  # fmt: skip
        tx.execute(sa.insert(handling_event), {
            **kept, "event_id": act, "digest": uuid.UUID(int=9), "partition": 0, "offset": 0, "alert_id": first,
            "body": record,
        })  # fmt: skip
    code, said = shown(escalation)
    card = "oversight.alert.v1 发牌预警 区住建局 种类 效能牌 牌色 红牌 监察结果 红牌：办件 c1"
    both = [f"2020-09-21 11:00:00 {first} {card}", f"2020-09-21 11:00:01 {second} {card}"]
    assert (code, said.splitlines()) == (0, both)
    code, said = shown(ruling)
    assert (code, said.splitlines()[1:]) == (1, [
        f"2020-09-21 11:01:00 {act} {HANDLING.name} 撤牌 区行政审批服务局 说明 【姓名】的申诉成立 "
        f"回执 {act}.00000000000000000000000000000009",
        f"{lost} 无此事件：发布箱、各表和监察台中均没有", "no id 无此事件：发布箱、各表和监察台中均没有",
    ])  # fmt: skip
    assert shown(first)[0] == 1  # it names none


def test_of_personal_fields_only_texts_are_shown_which_are_masked() -> None:
    assert {name for topic in TOPICS for name in personal_fields(topic)} & SHOWN.keys() == WRITTEN
