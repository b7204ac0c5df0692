"""A rating that contradicts the clock, whichever of rating and case is applied first, by row and by column."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.intake.calendar import calendar_row
from schemas import codec, envelope
from schemas.topics import CASE, ITEM, RATING, Topic
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier, tally
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import card, case_state, rating_claim_news
from streams.store.tally import TallyProjection

pytestmark = pytest.mark.stack
CODE = "11430903MBDEM0138T4000715002000"


def ms(day: int, hour: int) -> int:
    return epoch_ms(day_of(date(2020, 10, day)) * DAY_MINUTES + hour * 60)


def record(topic: Topic, kind: str, at: int, **more: Any) -> dict[str, Any]:
    made = {"event_type": kind, "region": "430903", "department": "HS-ZRZYJ", "occurred_at": at, "received_at": at}
    whole = {**made, "item_code": CODE, **more}
    return {**whole, "event_id": str(envelope.event_id(topic, whole))}


def case(kind: str, at: int) -> dict[str, Any]:
    return record(CASE, f"case.{kind}", at, case_no="C-1", event_no=1)


def rating(case_no: str, at: int, *tags: str, revision: int = 0) -> dict[str, Any]:
    return record(RATING, "rating.given", at, case_no=case_no, service_no=1, assess_no=1, revision=revision,
                  operation="U" if revision else "I", satisfaction_set="platform.satisfaction",
                  satisfaction_code="1", channel_set="platform.channel", channel_code="2",
                  tag_set="platform.eval-detail" if tags else "", tags=list(tags))  # fmt: skip


class Engine:
    """Applies records in the order given, and lets timers run to the end of October."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine, self.judge, self.tally = engine, JudgeProjection(), TallyProjection(upload=False)
        self._next: dict[str, int] = {}
        calendar = {**calendar_row(2020, occurred_at=1, department="HS-XZSPJ"), "received_at": 1}
        topic = ScheduleProjection.topic
        self.put(ScheduleProjection(), {**calendar, "event_id": str(envelope.event_id(topic, calendar))})
        self.put(DefineProjection(), record(ITEM, "item.published", 1, item_version=1, name="登记", promise_limit=5.0,
                 promise_unit_code="1", effective_on=date(2004, 1, 1)))  # fmt: skip

    def put(self, projection: Projection, *records: dict[str, Any]) -> None:
        carried = []
        for made in records:
            topic = projection.topic
            offset = self._next[topic.name] = self._next.get(topic.name, -1) + 1
            value = codec.encode(topic, made)
            whole = codec.decode(value, topic)
            headers = tuple(envelope.headers(topic, whole))
            carried.append(Carried(topic, 0, offset, str(whole[topic.key]).encode(), value, headers))
        applier.apply_batch(self.engine, projection, carried)

    def settle(self) -> None:
        while applier.aside(self.engine, self.tally.speak):
            pass
        while applier.tick(self.engine, self.judge, 0, ms(31, 12)):
            pass

    def findings(self) -> list[tuple[Any, ...]]:
        query = sa.select(card.c.rule_id, card.c.issued_at, card.c.revoked_reason).where(card.c.kind == "FINDING")
        with self.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(query)]


@pytest.fixture(params=["rows", "columns"])
def bus(request: pytest.FixtureRequest, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    if request.param == "columns":
        monkeypatch.setattr(tally, "FEW", 0)
    return Engine(engine)


LIFE = (case("accepted", ms(12, 10)), case("decided", ms(19, 17)))


def test_a_rating_that_comes_after_the_case_is_told_to_its_judge(bus: Engine) -> None:
    bus.put(bus.judge, *LIFE)
    bus.settle()
    bus.put(bus.tally, rating("C-1", ms(21, 9), "110"), rating("C-2", ms(21, 9), "115"))
    with bus.engine.connect() as tx:
        assert list(tx.execute(sa.select(rating_claim_news.c.case_no)).scalars()) == ["C-1"]
    assert bus.findings() == []
    bus.settle()
    assert bus.findings() == [("tag_contradicts_clock", ms(21, 9), "")]
    with bus.engine.connect() as tx:
        assert tx.execute(sa.select(case_state.c.next_check_at)).scalar_one() is None


def test_a_rating_that_comes_before_the_case_waits_for_it(bus: Engine) -> None:
    bus.put(bus.tally, rating("C-1", ms(21, 9), "110"))
    bus.settle()
    bus.put(bus.judge, *LIFE)
    bus.settle()
    assert bus.findings() == [("tag_contradicts_clock", ms(21, 9), "")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_correction_takes_it_back_in_either_order(bus: Engine, order: tuple[int, int]) -> None:
    said = [rating("C-1", ms(21, 9), "110"), rating("C-1", ms(23, 9), "115", revision=1)]
    bus.put(bus.judge, *LIFE)
    for place in order:
        bus.put(bus.tally, said[place])
        bus.settle()
    assert bus.findings() == [("tag_contradicts_clock", ms(21, 9), "rating_corrected")]
