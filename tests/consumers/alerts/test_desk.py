"""The desk on a real database: alerts and acts in any order, with repetitions and timers between, end the same."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka.errors import KafkaTimeoutError

from connectors.intake.calendar import calendar_rows
from consumers.alerts import desk as clocked
from consumers.alerts.desk import DeskClock
from consumers.alerts.inbox import Inbox, open_alerts
from consumers.loop import reader
from schemas import codec, envelope
from schemas.topics import ALERT, CALENDAR, HANDLING, RATING, Topic
from streams.rules import life
from streams.rules.tally import Standing
from streams.store import desk, outbox, standing
from streams.store.applier import apply_batch, aside
from streams.store.follow import FollowProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.steps import decode_rows
from streams.store.tables import desk_check
from streams.store.tally import TallyProjection

pytestmark = pytest.mark.stack
CASE, ITEM = "11430903MBDEM011134000117024000202003230007", "11430903MBDEM011134000117024000"
RED, YELLOW = "f3dc328e-b5bd-5f29-8af7-82834927cc29", "9ed40fb6-0254-5e7a-82da-8009f471fd45"
OTHER, AGAIN = "11430903MBDEM011134000117024000202003230008", "f3dc328e-b5bd-5f29-8af7-82834927cc30"
LEGAL = "b7b7b7b7-0000-5000-8000-000000000001"
END = "2020-12-01 09:00"
Told = tuple[Topic, Mapping[str, Any]]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp() * 1000)


def record(event_type: str, at: str, heard: str = "", **more: Any) -> dict[str, Any]:
    return {
        "event_type": event_type, "region": "430903", "department": "HS-ZJJ", "occurred_at": ms(at),
        "occurred_text": "", "entered_at": None, "received_at": ms(heard or at), "case_no": CASE, **more,
    }  # fmt: skip


def alert(alert_id: str, colour: str, at: str, seq: int = 1, event_type: str = "alert.issued", **more: Any) -> Told:
    return ALERT, record(
        event_type, at,
        **{"alert_id": alert_id, "alert_seq": seq, "kind_code": "CARD", "colour_code": colour,
           "rule_id": "HS-CARD", "rule_version": "1", "item_code": ITEM, "summary": "…", "issued_at": ms(at), **more},
    )  # fmt: skip


def act(name: str, at: str, alert_id: str, heard: str = "", **more: Any) -> Told:
    return HANDLING, record(f"handling.{name}", at, heard, alert_id=alert_id, event_no=1, **more)


def carry(told: Told, offset: int) -> Carried:
    topic, given = told
    row = outbox.row(topic, given)
    return Carried(topic, 0, offset, str(given[topic.key]).encode(), row.value,
                   tuple(envelope.headers(topic, row.record)))  # fmt: skip


class Bus:
    """An empty database and the steps of a bus that carries to it."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.offsets: dict[Topic, int] = {}
        self.follow: dict[Topic, Projection] = {
            HANDLING: FollowProjection(), RATING: TallyProjection(upload=False), CALENDAR: ScheduleProjection(),
        }  # fmt: skip
        self.reader = desk.DeskReader()
        with engine.begin() as tx:
            tx.execute(sa.text(
                "TRUNCATE alert_inbox, desk_check, alert_life, handling_event, outbox, cursor, rating_event, "
                "rating_cell_merged, rating_cell_change, rating_out, rating_out_news"
            ))  # fmt: skip

    def hear(self, *told: Told) -> None:
        """Let one record after another arrive: inbound ones in the worker, alerts at the desk."""
        for one in told:
            topic, offset = one[0], self.offsets.get(one[0], 0)
            self.offsets[topic] = offset + 1
            carried = carry(one, offset)
            if topic is ALERT:
                self.inbox([carried])
            else:
                apply_batch(self.engine, self.follow[topic], [carried])

    def inbox(self, carried: Sequence[Carried]) -> None:
        events, refused = decode_rows(carried)
        assert not refused
        with self.engine.begin() as tx:
            Inbox(clock=lambda: 0).apply(tx, events)

    def tick(self, until: str | int) -> None:
        """Timers up to a moment; what the desk says comes back to it as alerts do, until nothing is new."""
        at = ms(until) if isinstance(until, str) else until
        for _ in range(5):
            with self.engine.begin() as tx:
                partitions = desk.due(tx, at)
                for partition in partitions:
                    assert not self.reader.tick(tx, partition, at)
            self.inbox([Carried(ALERT, 0, n, r["alert_id"].encode(), v, h) for n, (r, v, h) in enumerate(self.said())])
        with self.engine.begin() as tx:
            assert not desk.due(tx, at) or partitions

    def said(self) -> list[tuple[Mapping[str, Any], bytes, tuple[tuple[str, bytes], ...]]]:
        query = sa.text("SELECT value FROM outbox WHERE topic = :topic ORDER BY seq")
        with self.engine.connect() as tx:
            values = [bytes(v) for v in tx.execute(query, {"topic": ALERT.name}).scalars()]
        records = [codec.decode(v, ALERT) for v in values]
        return [(r, v, tuple(envelope.headers(ALERT, r))) for r, v in zip(records, values, strict=True)]

    def words(self) -> list[tuple[str, ...]]:
        """Kind, rule, last word and its reason of every alert that the desk said and did not take back."""
        last = {r["alert_id"]: r for r, _, _ in self.said()}
        return sorted(
            (r["kind_code"], r["colour_code"], r["rule_id"], r["event_type"], r["revoked_reason_code"], r["summary"])
            for r in last.values()
            if r["event_type"] != "alert.retracted"
        )

    def lives(self) -> list[tuple[Any, ...]]:
        with self.engine.connect() as tx:
            return [tuple(r) for r in tx.execute(sa.text("SELECT * FROM alert_life ORDER BY case_no, alert_id"))]

    def stage(self, alert_id: str) -> Any:
        with self.engine.connect() as tx:
            query = sa.text("SELECT stage FROM alert_life WHERE alert_id = :id")
            return tx.execute(query, {"id": alert_id}).scalar_one()


@pytest.fixture
def office(engine: sa.Engine) -> Bus:
    made = Bus(engine)
    rows = calendar_rows(occurred_at=0, department="HS-XZSPJ")
    made.hear(*((CALENDAR, {**r, "region": "000000", "department": "HS-XZSPJ", "received_at": 0, "entered_at": None,
                            "occurred_text": ""}) for r in rows))  # fmt: skip
    return made


HISTORY: list[Told] = [
    alert(RED, "RED", "2020-09-21 11:00"),
    alert(YELLOW, "YELLOW", "2020-09-18 11:00"),
    alert(YELLOW, "YELLOW", "2020-09-18 11:00", 2, "alert.revoked", received_at=ms("2020-09-25 10:00"),
          occurred_at=ms("2020-09-25 10:00"), revoked_reason_code="late_stop"),
    alert(LEGAL, "RED_STATUTORY", "2020-09-22 11:00"),
    act("signed", "2020-09-21 14:00", RED, heard="2020-09-23 09:00"),
    act("appealed", "2020-09-24 09:00", RED),
    act("revoked", "2020-09-28 09:00", RED, department="HS-XZSPJ"),
    act("closed", "2020-09-23 09:00", LEGAL),
    act("signed", "2020-09-22 14:00", "nobody-issued-this"),
]  # fmt: skip


def other(told: Told) -> Told:
    """The same of another case."""
    return told[0], {**told[1], "case_no": OTHER, "alert_id": AGAIN}


@pytest.mark.parametrize(("rule", "unlucky"), [("desk", 0), ("escalated", 1)])
def test_a_key_at_which_the_rule_fails_holds_up_no_other(
    office: Bus, monkeypatch: pytest.MonkeyPatch, rule: str, unlucky: int
) -> None:
    """``unlucky``: which argument of the rule names the case or the department at which it fails."""
    first = alert(RED, "RED", "2020-09-21 11:00")
    office.hear(first, other(first))
    rightly, bad = getattr(life, rule), {CASE, "HS-ZJJ"}

    def fails(*asked: Any) -> Any:
        told = asked[unlucky]
        if (told.partition("/")[0] if isinstance(told, str) else told[0].case_no) in bad:
            raise KeyError(str(told))
        return rightly(*asked)

    monkeypatch.setattr(life, rule, fails)
    office.tick("2020-09-30 09:00")
    assert office.stage(AGAIN) == "ISSUED"
    assert any(w[2] == "HS-LIFE-SIGN" for w in office.words())
    monkeypatch.undo()
    with office.engine.begin() as tx:  # what is known anew of a key makes it due again
        desk.mark(tx, desk.CASE, {CASE: 0})
        desk.mark(tx, desk.DEPARTMENT, {"HS-ZJJ/2020-09": 0})
    office.tick("2020-09-30 09:00")
    assert office.stage(RED) == "ISSUED"
    assert sum(w[2] == "HS-LIFE-SIGN" for w in office.words()) == 2


@pytest.mark.parametrize("what", ["_life_rows", "add case", "add department"])
def test_a_key_of_which_something_cannot_be_stored_holds_up_no_other(
    office: Bus, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = alert(RED, "RED", "2020-09-21 11:00")
    office.hear(first, other(first))
    lives, add, bad = desk._life_rows, desk._Written.add, {CASE, "HS-ZJJ/2020-09"}

    def life_rows(case_no: str, *rest: Any) -> Any:
        return [{**row, "stage": "\x00"} if case_no in bad else row for row in lives(case_no, *rest)]

    def added(self: Any, scope: str, key: str, partition: int, nearest: int | None, *rest: Any) -> None:
        add(self, scope, key, partition, 1 << 70 if what == f"add {scope.lower()}" and key in bad else nearest, *rest)

    monkeypatch.setattr(desk, "_life_rows", life_rows if what == "_life_rows" else lives)
    monkeypatch.setattr(desk._Written, "add", added)
    office.tick("2020-09-30 09:00")
    assert {case_no for _, case_no, *_ in office.lives()} == ({OTHER, CASE} if what == "add department" else {OTHER})
    assert any(w[2] == "HS-LIFE-SIGN" for w in office.words())
    monkeypatch.undo()
    with office.engine.begin() as tx:
        desk.mark(tx, desk.CASE, {CASE: 0})
    office.tick("2020-09-30 09:00")
    assert office.stage(RED) == office.stage(AGAIN) == "ISSUED"
    assert sum(w[2] == "HS-LIFE-SIGN" for w in office.words()) == 2


def test_a_history_of_three_cards_ends_as_typed(office: Bus) -> None:
    office.hear(*HISTORY)
    office.tick(END)
    assert [office.stage(i) for i in (RED, YELLOW, LEGAL, "nobody-issued-this")] == [
        "REVOKED", "REVOKED", "ISSUED", "UNKNOWN",
    ]  # fmt: skip
    with office.engine.connect() as tx:
        standing_ones = [(r.kind, str(r.alert_id)) for r in open_alerts(tx) if r.kind in ("CARD", "RULING")]
    assert standing_ones == [("CARD", LEGAL)]
    assert [w[:5] for w in office.words()] == [
        ("ESCALATION", "RED", "HS-ESC-CASE", "alert.revoked", "alert_revoked"),
        ("FINDING", "NONE", "illegal_handling", "alert.issued", ""),
        ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "alert.issued", ""),  # the finding itself is not signed either
        ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "alert.issued", ""),
        ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "alert.revoked", "alert_revoked"),
        ("HANDLING", "YELLOW", "HS-LIFE-SIGN", "alert.revoked", "late_handling"),
        ("RULING", "NONE", "HS-LIFE-RULING", "alert.issued", ""),
    ]
    assert office.words()[-1][5] == f"复核决定：办件 {CASE} 的红牌经复核申诉成立（已撤牌），不再计入统计。"
    what = "红牌(超法定时限)未在 2020-09-23 17:00 前完成签收"
    assert office.words()[3][5] == f"处置超时：办件 {CASE} 的{what}，请立即处理。"


def test_any_order_with_repetitions_and_timers_between_ends_the_same(office: Bus) -> None:
    office.hear(*HISTORY)
    office.tick(END)
    expected = office.lives(), office.words()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(order: random.Random) -> None:
        other = Bus(office.engine)
        told = [*HISTORY, *order.sample(HISTORY, 3)]
        order.shuffle(told)
        for one in told:
            other.hear(one)
            if order.random() < 0.3:
                other.tick(order.randrange(ms("2020-09-18 11:00"), ms(END)))
        other.tick(END)
        assert other.lives() == expected[0]
        assert other.words() == expected[1]

    check()


def test_an_act_that_is_heard_after_the_desk_looked_moves_the_stage(office: Bus) -> None:
    office.hear(alert(RED, "RED", "2020-09-21 11:00"))
    office.tick("2020-09-21 12:00")
    office.hear(act("signed", "2020-09-21 14:00", RED))
    office.tick("2020-09-21 15:00")
    assert office.stage(RED) == "SIGNED"


def test_five_red_cards_of_one_department_in_a_month_go_to_the_leading_group(office: Bus) -> None:
    for at in ("08-31 23:59", "09-01 00:00", "09-21 11:00", "09-22 11:00", "09-23 11:00"):
        office.hear(alert(f"{at[:2]}{at[3:5]}{RED[4:]}", "RED", f"2020-{at}", case_no=f"{CASE}{at}"))
    office.tick("2020-09-25 10:59")
    assert not [w for w in office.words() if w[0] == "ESCALATION"]
    office.hear(alert(f"0925{RED[4:]}", "RED", "2020-09-25 11:00", case_no=f"{CASE}25"))
    office.tick("2020-09-25 11:00")
    (word,) = [w for w in office.words() if w[0] == "ESCALATION"]
    assert word[5] == "提级督办：区住建局在 2020-09 已被发 5 张红牌，提请区政务公开政务服务领导小组督办。"
    where = "FROM desk_check WHERE key = 'HS-ZJJ/2020-09'"
    with office.engine.begin() as tx:  # its partition may be behind those of the cases: it must look again then
        tx.execute(sa.text("UPDATE desk_check SET next_check_at = 0 WHERE key = 'HS-ZJJ/2020-09'"))
        office.reader.tick(tx, tx.execute(sa.text(f"SELECT partition {where}")).scalar_one(), ms("2020-09-24 12:00"))
        assert tx.execute(sa.text(f"SELECT next_check_at {where}")).scalar_one() == ms("2020-09-25 11:00")


def test_a_department_that_an_older_consumer_marked_has_its_months_looked_at(office: Bus) -> None:
    office.hear(*(alert(f"{n}{RED[1:]}", "RED", "2020-09-21 11:00", case_no=f"{CASE}{n}") for n in range(5)))
    office.tick("2020-09-25 11:00")
    with office.engine.begin() as tx:
        tx.execute(sa.text("DELETE FROM desk_check WHERE scope = 'DEPARTMENT'"))
        desk.mark(tx, desk.DEPARTMENT, {"HS-ZJJ": 0})
    office.tick("2020-09-25 11:00")
    with office.engine.connect() as tx:
        rows = tx.execute(sa.text("SELECT key, next_check_at, said <> '{}' FROM desk_check WHERE scope = 'DEPARTMENT'"))
        assert sorted(map(tuple, rows)) == [("HS-ZJJ", None, False), ("HS-ZJJ/2020-09", None, True)]


def test_a_calendar_that_comes_later_moves_what_is_due(engine: sa.Engine) -> None:
    """Without any calendar nothing is overdue; with it, it is."""
    office = Bus(engine)
    with engine.begin() as tx:
        tx.execute(sa.text("TRUNCATE calendar_event"))
    office.hear(alert(RED, "RED", "2020-09-21 11:00"))
    office.tick(END)
    assert office.words() == []
    rows = calendar_rows(occurred_at=0, department="HS-XZSPJ")
    office.hear(*((CALENDAR, {**r, "region": "000000", "department": "HS-XZSPJ", "received_at": ms("2020-11-01 09:00"),
                           "entered_at": None, "occurred_text": ""}) for r in rows))  # fmt: skip
    office.tick(END)
    assert [w[2] for w in office.words()] == ["HS-LIFE-SIGN"]


def rated(at: str, code: str, heard: str = "", **more: Any) -> Told:
    return RATING, record(
        "rating.given", at, heard, item_code=ITEM, satisfaction_set="platform.satisfaction", satisfaction_code=code,
        channel_set="platform.channel", channel_code="1", service_no=1, assess_no=1,
        **{"revision": 0, "is_default": False, **more},
    )  # fmt: skip


def test_an_act_of_another_department_or_from_before_the_card_has_no_effect(office: Bus) -> None:
    office.hear(alert(RED, "RED", "2020-09-21 11:00"))
    office.hear(act("signed", "2020-09-21 14:00", RED, department="HS-JTJ"))
    office.hear(act("signed", "2019-09-21 14:00", RED, heard="2020-09-21 14:00"))
    office.tick(END)
    assert office.stage(RED) == "ISSUED"
    with office.engine.connect() as tx:
        steps = tx.execute(sa.text("SELECT steps FROM alert_life WHERE alert_id = :id"), {"id": RED}).scalar_one()
    assert [s[-1] for s in steps] == ["before_alert", "not_entitled"]
    assert any(w[2:4] == ("HS-LIFE-SIGN", "alert.issued") for w in office.words())


def test_a_wrong_act_is_a_finding_about_who_did_it_and_who_did_nothing_is_asked_nothing(office: Bus) -> None:
    """A bureau signs another's card by a wrong id, the supervisor supervises one that is closed."""
    closed = [act("signed", "2020-09-21 14:00", RED), act("rectified", "2020-09-21 15:00", RED),
              act("closed", "2020-09-21 16:00", RED)]  # fmt: skip
    office.hear(alert(RED, "RED", "2020-09-21 11:00"), *closed)
    office.hear(
        act("signed", "2020-09-22 09:00", RED, department="HS-JTJ"),
        act("supervised", "2020-09-22 10:00", RED, department="HS-XZSPJ"),
    )
    office.tick("2020-09-24 09:00")
    told = [(r["rule_id"], r["department"], r["summary"]) for r, _, _ in office.said()]
    assert sorted(told) == [
        ("HS-LIFE-SIGN", "HS-JTJ", f"处置超时：办件 {CASE} 的监察发现未在 2020-09-23 17:00 前完成签收，请立即处理。"),
        ("HS-LIFE-SIGN", "HS-XZSPJ", f"处置超时：办件 {CASE} 的监察发现未在 2020-09-23 17:00 前完成签收，请立即处理。"),
        ("illegal_handling", "HS-JTJ",
         f"监察发现：区交通运输局对办件 {CASE} 的红牌处置不合规（签收：无权作出该处置），请核查。"),
        ("illegal_handling", "HS-XZSPJ",
         f"监察发现：区行政审批服务局对办件 {CASE} 的红牌处置不合规（督办：终结后仍有处置），请核查。"),
    ]  # fmt: skip
    finding = next(r["alert_id"] for r, _, _ in office.said() if r["department"] == "HS-JTJ")
    office.hear(act("signed", "2020-09-24 10:00", finding, department="HS-JTJ"))
    office.tick("2020-09-24 11:00")
    assert office.stage(finding) == "SIGNED"


def test_a_finding_that_was_told_to_who_did_nothing_is_told_to_who_did_it(office: Bus) -> None:
    """As an older consumer addressed it."""
    office.hear(alert(RED, "RED", "2020-09-21 11:00"), act("signed", "2020-09-21 14:00", RED, department="HS-JTJ"))
    office.tick("2020-09-21 15:00")
    mine = desk_check.c.scope == "CASE"
    with office.engine.begin() as tx:
        said = tx.execute(sa.select(desk_check.c.said).where(mine)).scalar_one()
        (one,) = said.values()
        one["about"]["department"], one["alert"] = "HS-ZJJ", one["alert"][:-1]
        tx.execute(sa.update(desk_check).where(mine).values(said=said, next_check_at=0))
    office.tick("2020-09-21 16:00")
    told = [(r["department"], r["alert_seq"]) for r, _, _ in office.said() if r["rule_id"] == "illegal_handling"]
    assert told == [("HS-JTJ", 1), ("HS-JTJ", 2)]


def test_what_a_department_did_while_it_answered_stays_right_when_another_does(office: Bus) -> None:
    """A window's hall passes a case on; what was overdue by then is told of the hall."""
    hall, bureau, moved = "HS-ZWFWZX", "HS-ZJJ", "2020-09-24 09:00"
    office.hear(alert(RED, "RED", "2020-09-21 11:00", department=hall))
    office.hear(act("signed", "2020-09-23 14:00", RED, department=hall))
    office.tick("2020-09-24 08:00")
    handed_over: dict[str, Any] = {"department": bureau, "occurred_at": ms(moved), "received_at": ms(moved)}
    office.hear(alert(RED, "RED", "2020-09-21 11:00", 2, **handed_over))
    office.hear(
        act("explained", "2020-09-24 10:00", RED, department=hall),  # no more its to do
        act("rectified", "2020-09-24 11:00", RED, department=bureau),
    )
    office.tick("2020-09-24 12:00")
    with office.engine.connect() as tx:
        query = sa.text("SELECT department, stage, steps FROM alert_life WHERE alert_id = :id")
        row = tx.execute(query, {"id": RED}).one()
    assert [(s[1], s[-1]) for s in row.steps] == [("signed", ""), ("explained", "not_entitled"), ("rectified", "")]
    assert (row.department, row.stage) == (bureau, "CORRECTED")
    told = {r["rule_id"]: (r["department"], r["event_type"]) for r, _, _ in office.said() if r["rule_id"] != "HS-CARD"}
    assert told["HS-LIFE-SIGN"] == (hall, "alert.issued")


def test_what_was_told_to_a_department_that_no_more_answered_is_told_to_the_one_that_did(office: Bus) -> None:
    """The worker was behind: the case had gone on before the sign limit ended, and the desk heard of it after."""
    hall, bureau, moved = "HS-ZWFWZX", "HS-ZJJ", "2020-09-22 09:30"
    office.hear(alert(RED, "RED", "2020-09-21 11:00", department=hall))
    office.tick("2020-09-23 09:00")
    signs = [(r["department"], r["alert_seq"]) for r, _, _ in office.said() if r["rule_id"] == "HS-LIFE-SIGN"]
    assert signs == [(hall, 1)]
    handed_over: dict[str, Any] = {"department": bureau, "occurred_at": ms(moved), "received_at": ms(moved)}
    office.hear(alert(RED, "RED", "2020-09-21 11:00", 2, **handed_over))
    office.tick("2020-09-23 10:00")
    office.tick("2020-09-23 11:00")
    signs = [(r["department"], r["alert_seq"]) for r, _, _ in office.said() if r["rule_id"] == "HS-LIFE-SIGN"]
    assert signs == [(hall, 1), (bureau, 2)]


def test_an_overdue_review_is_told_to_who_decides_and_not_to_who_appealed(office: Bus) -> None:
    office.hear(alert(RED, "RED", "2020-09-21 11:00"), act("appealed", "2020-09-21 14:00", RED))
    office.tick("2020-10-20 09:00")
    told = {r["rule_id"]: r["department"] for r, _, _ in office.said()}
    assert told["HS-LIFE-REVIEW"] == "HS-XZSPJ"


def test_a_horizon_that_steps_back_takes_nothing_away(office: Bus) -> None:
    """An act is in Kafka and not applied yet: the partition is known up to some hours ago only."""
    office.hear(alert(RED, "RED", "2020-09-21 11:00"))
    office.tick("2020-09-21 12:00")
    before = office.lives()
    with office.engine.begin() as tx:
        desk.mark(tx, desk.CASE, {CASE: 0})
    office.tick("2020-09-21 10:00")
    assert office.lives() == before != []


def test_a_citizen_may_have_been_contacted_before_the_rating_was_received(office: Bus) -> None:
    office.hear(rated("2020-09-21 11:00", "1", heard="2020-09-22 09:00"))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    office.hear(act("contacted", "2020-09-21 15:00", raised["alert_id"]))
    office.tick("2020-09-22 12:00")
    assert office.stage(raised["alert_id"]) == "CONTACTED"


def _counted(office: Bus) -> int:
    ratings = office.follow[RATING]
    assert isinstance(ratings, TallyProjection)
    while aside(office.engine, ratings.speak):
        pass
    with office.engine.connect() as tx:
        return int(tx.execute(sa.text("SELECT sum(n) FROM rating_cell")).scalar_one())


def test_an_excluded_rating_stays_so_while_a_rebuild_reads_the_appeal_again(office: Bus) -> None:
    office.hear(rated("2020-09-21 11:00", "1"))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    acts = [
        act("contacted", "2020-09-21 15:00", raised["alert_id"]),
        act("verified", "2020-09-21 16:00", raised["alert_id"]),
        act("appealed", "2020-09-22 09:00", raised["alert_id"]),
        act("revoked", "2020-09-23 09:00", raised["alert_id"], department="HS-XZSPJ"),
    ]
    office.hear(*acts)
    office.tick("2020-09-23 12:00")
    assert (office.stage(raised["alert_id"]), _counted(office)) == ("EXCLUDED", 0)
    with office.engine.begin() as tx:
        tx.execute(sa.text("TRUNCATE handling_event"))
        desk.mark_all(tx)
    for until in (0, "2020-09-21 12:00"):
        office.tick(until)
        assert _counted(office) == 0
    for number, heard in enumerate(acts):
        apply_batch(office.engine, office.follow[HANDLING], [carry(heard, len(acts) + number)])
        office.tick(heard[1]["received_at"])
        assert _counted(office) == 0
    assert office.stage(raised["alert_id"]) == "EXCLUDED"
    with office.engine.connect() as tx:
        assert tx.execute(sa.text("SELECT DISTINCT changes FROM rating_out")).scalars().all() == [1]


def test_a_horizon_that_falls_back_unknows_no_act_that_is_applied(office: Bus) -> None:
    """Else what an appeal excluded on the word of a late act would count again for a while, and be told twice more."""
    office.hear(rated("2020-09-21 11:00", "1"))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    office.hear(
        act("verified", "2020-09-21 16:00", raised["alert_id"]),
        act("appealed", "2020-09-21 16:30", raised["alert_id"]),
        act("revoked", "2020-09-21 17:00", raised["alert_id"], department="HS-XZSPJ"),
        act("contacted", "2020-09-21 15:00", raised["alert_id"], "2020-09-22 10:00"),
    )
    for until in ("2020-09-22 11:00", "2020-09-22 08:00", "2020-09-22 12:00"):
        with office.engine.begin() as tx:  # what the desk says itself is not sent yet, and holds the horizon before it
            desk.mark_all(tx)
            for partition in desk.due(tx, ms(until)):
                office.reader.tick(tx, partition, ms(until))
        assert (office.stage(raised["alert_id"]), _counted(office)) == ("EXCLUDED", 0)


def test_an_appeal_that_excludes_a_rating_takes_it_out_of_what_is_counted(office: Bus) -> None:
    """The whole way: rating, alert, appeal, decision, news for the tally, cells, and what is known later."""
    office.hear(rated("2020-09-21 11:00", "1"))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    office.hear(act("contacted", "2020-09-21 15:00", raised["alert_id"]))
    office.hear(act("verified", "2020-09-21 16:00", raised["alert_id"]))
    office.hear(act("appealed", "2020-09-22 09:00", raised["alert_id"]))
    office.tick("2020-09-22 12:00")
    assert _counted(office) == 1
    office.hear(act("revoked", "2020-09-23 09:00", raised["alert_id"], department="HS-XZSPJ"))
    office.tick("2020-09-23 12:00")
    assert (office.stage(raised["alert_id"]), _counted(office)) == ("EXCLUDED", 0)
    office.hear(act("upheld", "2020-09-23 08:00", raised["alert_id"], "2020-09-24 09:00", department="HS-XZSPJ"))
    office.tick("2020-09-24 12:00")  # it was decided the day before
    assert (office.stage(raised["alert_id"]), _counted(office)) == ("RECTIFYING", 1)


def _turned(office: Bus, void: bool, at: str) -> None:
    """What the judge notes of a case that has become void, or is so no more."""
    with office.engine.begin() as tx:
        standing.judged(tx, {CASE: Standing(void, known_at=ms(at))})
        desk.mark(tx, desk.CASE, {CASE: desk.partition_of(CASE)})


def test_nobody_is_asked_about_a_bad_rating_of_a_case_that_is_void(office: Bus) -> None:
    """DOMAIN 3.5: what never was reverses what was counted of it; what the desk said of it by then is taken back."""
    office.hear(rated("2020-09-21 11:00", "1"))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    office.tick("2020-09-22 18:00")
    assert [w[2:4] for w in office.words() if w[2] != raised["rule_id"]] == [("HS-LIFE-CONTACT", "alert.issued")]
    _turned(office, void=True, at="2020-09-23 09:00")
    office.tick("2020-09-22 19:00")  # a rebuild that has not come to it
    assert office.stage(raised["alert_id"]) == "RAISED"
    office.tick(END)
    assert [w[2:4] for w in office.words() if w[2] != raised["rule_id"]] == [("HS-LIFE-CONTACT", "alert.revoked")]
    with office.engine.connect() as tx:
        query = sa.text("SELECT stage, out_at, out_reason FROM alert_life WHERE alert_id = :id")
        row = tx.execute(query, {"id": raised["alert_id"]}).one()
    assert tuple(row) == ("REVOKED", ms("2020-09-23 09:00"), "case_voided")
    _turned(office, void=False, at="2020-09-24 09:00")
    office.tick(END)
    assert ("HS-LIFE-RECTIFY", "alert.issued") in [w[2:4] for w in office.words()]


def test_narrative_38_a_default_rating_gives_way_to_a_bad_one_and_the_loop_starts_with_that(office: Bus) -> None:
    office.hear(rated("2020-09-18 09:00", "5", is_default=True))
    office.hear(rated("2020-09-21 11:00", "1", revision=1))
    ((raised, value, headers),) = office.said()
    office.inbox([Carried(ALERT, 0, 0, raised["alert_id"].encode(), value, headers)])
    office.tick("2020-09-21 12:00")
    with office.engine.connect() as tx:
        row = tx.execute(sa.text("SELECT stage, next_timer, next_due_at, dues FROM alert_life")).one()
    assert (row.stage, row.next_timer, row.next_due_at) == ("RAISED", "contact", ms("2020-09-22 17:00"))
    assert row.dues["rectify"] == ms("2020-10-16 17:00")


def alerted(line: Any) -> Bus:
    """A desk that knows the calendars and one red card."""
    office = Bus(line.engine)
    rows = calendar_rows(2019, 2021, occurred_at=0, department="HS-XZSPJ")
    base = {"region": "000000", "received_at": 0, "entered_at": None, "occurred_text": ""}
    office.hear(*((CALENDAR, {**r, **base}) for r in rows))
    office.hear(alert(RED, "RED", "2020-09-21 11:00"))
    return office


def test_the_desks_clock_waits_for_acts_that_are_published_and_not_applied(line: Any) -> None:
    """An act in the outbox, then in Kafka, holds the timers back; once it is applied they say what it left open."""
    office = alerted(line)
    clock = DeskClock(line.engine, line.kafka, now_ms=lambda: ms(END))
    consumer = reader(line.kafka)
    try:
        told = act("signed", "2020-09-21 14:00", RED)
        line.publish(HANDLING, [told[1]])
        clock.tick(consumer)
        assert office.words() == []  # nor is the case looked at: the act may be about it
        line.relay()
        clock.tick(consumer)
        assert office.words() == []
        apply_batch(line.engine, FollowProjection(), line.carried(HANDLING))
        clock.tick(consumer)
        assert [w[2] for w in office.words()] == ["HS-LIFE-ANSWER"]
        assert office.stage(RED) == "SIGNED"
    finally:
        consumer.close(autocommit=False)


def test_the_desks_clock_waits_for_words_of_alerts_that_are_not_sent(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may take back what would be overdue."""
    monkeypatch.setattr(clocked, "_ends", lambda _: dict.fromkeys(range(HANDLING.partitions), 0))  # others left some
    office, consumer = alerted(line), reader(line.kafka)
    try:
        clock = DeskClock(line.engine, line.kafka, now_ms=lambda: ms(END))
        line.publish(ALERT, [alert(YELLOW, "YELLOW", "2020-09-21 12:00")[1]])
        clock.tick(consumer)
        assert len(office.said()) == 1
        line.relay()
        clock.tick(consumer)
        assert len(office.said()) > 1
    finally:
        consumer.close(autocommit=False)


def test_brokers_that_do_not_say_how_far_the_log_goes_are_told_of_and_asked_anew(
    line: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    alerted(line)
    rightly, asked = clocked._ends, list[Any]()

    def ends(consumer: Any) -> Mapping[int, int]:
        asked.append(consumer)
        if len(asked) == 1:
            raise KafkaTimeoutError
        return rightly(consumer)

    monkeypatch.setattr(clocked, "_ends", ends)
    stop = threading.Event()
    thread = threading.Thread(target=DeskClock(line.engine, line.kafka, now_ms=lambda: ms(END)).run, args=(stop,))
    with structlog.testing.capture_logs() as said:
        thread.start()
        try:
            wait_until(lambda: len(asked) > 1)
        finally:
            stop.set()
            thread.join(20)
    assert [entry["event"] for entry in said if entry["log_level"] == "warning"] == ["desk.waits"]
    assert asked[0] is not asked[1]
