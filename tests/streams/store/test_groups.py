"""Groups through PostgreSQL: members in several partitions, applied and ticked by two workers in any order."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.intake.calendar import calendar_row
from schemas import codec, envelope
from schemas.topics import CALENDAR, CASE, ITEM, Topic
from streams.rules import groups as rules
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier, redating
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import alert_said, card, case_group, case_state, group_state
from streams.store.tables import outbox as outbox_table

pytestmark = pytest.mark.stack
LAND, PLAN = "11430903MBDEM0138T4000115002000", "11430903MBDEM011134000117024000"
HOUR = 3_600_000


def ms(month: int, day: int, hour: int, minute: int = 0) -> int:
    return epoch_ms(day_of(date(2020, month, day)) * DAY_MINUTES + hour * 60 + minute)


def made(topic: Topic, kind: str, at: int, received: int, **more: Any) -> dict[str, Any]:
    known = {"event_type": kind, "region": "430903", "department": "HS-ZJJ", "occurred_at": at}
    whole = {**known, "received_at": received, **more}
    return {**whole, "event_id": str(envelope.event_id(topic, whole))}


def case(kind: str, case_no: str, at: int, received: int | None = None, **more: Any) -> dict[str, Any]:
    fields = {"case_no": case_no, "item_code": LAND, "event_no": 1, "project_code": "2005-430903-04-01-000001", **more}
    return made(CASE, f"case.{kind}", at, at if received is None else received, **fields)


def published(code: str, rule: str) -> dict[str, Any]:
    return made(ITEM, "item.published", 1, 1, item_code=code, item_version=1, name="事项", promise_limit=20.0,
                promise_unit_code="1", limit_rule=rule, effective_on=date(2004, 1, 1))  # fmt: skip


def calendar(received: int = 1, revision: int = 1, *closed: date) -> dict[str, Any]:
    row = calendar_row(2020, occurred_at=received, department="HS-XZSPJ", revision=revision)
    more = [{"day": day, "working": False, "name": "停电"} for day in closed]
    row = {**row, "received_at": received, "days": [*row["days"], *more]}
    return {**row, "event_id": str(envelope.event_id(CALENDAR, row))}


class Log:
    """Offsets by topic and partition; a case lies in the partition that its number ends with."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, int], int] = {}

    def carry(self, topic: Topic, record: dict[str, Any]) -> Carried:
        partition = int(record["case_no"][-1]) if topic is CASE else 0
        offset = self._next[topic.name, partition] = self._next.get((topic.name, partition), -1) + 1
        value = codec.encode(topic, record)
        whole = codec.decode(value, topic)
        key = str(whole[topic.key]).encode()
        return Carried(topic, partition, offset, key, value, tuple(envelope.headers(topic, whole)))


def put(engine: sa.Engine, projection: Projection, log: Log, *records: dict[str, Any]) -> None:
    applier.apply_batch(engine, projection, [log.carry(projection.topic, r) for r in records])


def settle(engine: sa.Engine, judge: JudgeProjection, horizons: dict[int, int]) -> None:
    """As workers do: the partitions in which anything is due, until nothing changes."""
    for _ in range(4):
        due = dict(horizons)
        while due:
            due = {p: horizons[p] for p in applier.tick_all(engine, judge, due)}


def rows(engine: sa.Engine, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    with engine.connect() as tx:
        return [tuple(row) for row in tx.execute(query)]


def group_cards(engine: sa.Engine) -> list[tuple[Any, ...]]:
    query = sa.select(card.c.rule_id, card.c.issued_at, card.c.revoked_reason)
    return rows(engine, query.where(card.c.case_no.like("project/%")).order_by(card.c.issued_at))


ACCEPTED = ms(5, 18, 10)


def prepared(engine: sa.Engine) -> tuple[Log, JudgeProjection]:
    log = Log()
    put(engine, ScheduleProjection(), log, calendar())
    put(engine, DefineProjection(), log, published(LAND, "R6-5"), published(PLAN, "R6-6"))
    return log, JudgeProjection()


def test_the_timer_issues_the_cards_of_a_silent_project(engine: sa.Engine) -> None:
    log, judge = prepared(engine)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED), case("accepted", "C-1", ACCEPTED, item_code=PLAN))
    settle(engine, judge, dict.fromkeys((0, 1), ms(7, 14, 17)))
    assert [c[0] for c in group_cards(engine)] == ["HS-CARD-GROUP-Y"]
    settle(engine, judge, dict.fromkeys((0, 1), ms(7, 14, 17, 1)))
    assert group_cards(engine)[1:] == [("HS-CARD-GROUP-R", ms(7, 14, 17, 1), "")]
    assert rows(engine, sa.select(group_state.c.limit_rule, group_state.c.stage, group_state.c.due_at)) == [
        ("R6-5", "DURING", ms(7, 14, 17))
    ]


def test_an_item_that_is_published_after_its_cases_gives_their_project_its_clock(engine: sa.Engine) -> None:
    log, judge = Log(), JudgeProjection()
    put(engine, ScheduleProjection(), log, calendar())
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED))
    settle(engine, judge, {0: ms(7, 14, 17)})
    limit = sa.select(group_state.c.limit_rule, group_state.c.due_at)
    assert rows(engine, limit) == [("", None)]
    put(engine, DefineProjection(), log, published(LAND, "R6-5"))
    settle(engine, judge, {0: ms(7, 14, 17)})
    assert rows(engine, limit) == [("R6-5", ms(7, 14, 17))]


def test_a_project_keeps_silent_while_a_members_partition_is_not_known_that_far(engine: sa.Engine) -> None:
    log, judge = prepared(engine)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED), case("accepted", "C-1", ACCEPTED, item_code=PLAN))
    settle(engine, judge, {0: ms(7, 20, 9)})
    assert group_cards(engine) == []  # nothing is known of partition 1
    settle(engine, judge, {1: ms(7, 10, 9)})
    assert [c[0] for c in group_cards(engine)] == ["HS-CARD-GROUP-Y"]
    with engine.connect() as tx:
        assert judge.due(tx, ms(7, 20, 9)) >= {0, 1}


def test_a_group_says_what_its_table_holds_and_says_it_once(engine: sa.Engine) -> None:
    log, judge = prepared(engine)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED))
    for _ in range(3):
        settle(engine, judge, {0: ms(7, 15, 9)})
    with engine.connect() as tx:
        said = [codec.decode(bytes(v)) for v in tx.execute(sa.select(outbox_table.c.value)).scalars()]
    ours = [(a["rule_id"], a["event_type"], a["department"]) for a in said if a["case_no"].startswith("project/")]
    assert ours == [("HS-CARD-GROUP-Y", "alert.issued", "HS-ZJJ"), ("HS-CARD-GROUP-R", "alert.issued", "HS-ZJJ")]
    assert rows(engine, sa.select(case_group.c.stale)) == [(False,)]


def test_a_group_at_which_the_rule_fails_holds_up_no_other(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    log, judge = prepared(engine)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED), case("accepted", "C-1", ACCEPTED, project_code="BAD-1"))

    rightly = rules.derive

    def derive(key: str, *rest: Any) -> Any:
        if key.endswith("BAD-1"):
            raise KeyError(key)
        return rightly(key, *rest)

    monkeypatch.setattr(rules, "derive", derive)
    settle(engine, judge, dict.fromkeys((0, 1), ms(7, 15, 9)))
    assert [c[0] for c in group_cards(engine)] == ["HS-CARD-GROUP-Y", "HS-CARD-GROUP-R"]
    with engine.connect() as tx:
        assert judge.due(tx, ms(7, 15, 9)) == set()


def test_a_group_that_cannot_be_written_holds_up_no_other(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    log, judge = prepared(engine)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED), case("accepted", "C-1", ACCEPTED, project_code="BAD-1"))
    rightly = rules.derive

    def derive(key: str, *rest: Any) -> Any:
        state, decisions = rightly(key, *rest)
        return replace(state, department="\x00") if key.endswith("BAD-1") else state, decisions

    monkeypatch.setattr(rules, "derive", derive)
    settle(engine, judge, dict.fromkeys((0, 1), ms(7, 15, 9)))
    assert [c[0] for c in group_cards(engine)] == ["HS-CARD-GROUP-Y", "HS-CARD-GROUP-R"]
    with engine.connect() as tx:
        assert judge.due(tx, ms(7, 15, 9)) == set()


def test_a_calendars_effects_name_the_clock_of_a_project(engine: sa.Engine) -> None:
    log, judge = prepared(engine)
    revised = ms(6, 1, 9)
    put(engine, judge, log, case("accepted", "C-0", ACCEPTED), case("accepted", "C-1", ACCEPTED, item_code=PLAN))
    put(engine, ScheduleProjection(), log, calendar(revised, 2, date(2020, 6, 29)))
    settle(engine, judge, dict.fromkeys((0, 1), ms(6, 2, 9)))
    with engine.connect() as tx:
        found, whom = redating.published(tx, "2020-r2")
        assert redating.concerned(tx, whom) == 1  # the project; its cases end before that day
        (moved,) = [c for _, block in redating.moved_groups(tx, found, whom) for c in block]
    assert (moved.case_no, moved.department, moved.clock, moved.open) == (
        "project/430903/2005-430903-04-01-000001", "HS-ZJJ", "group", True
    )  # fmt: skip
    assert (moved.due_before, moved.due_after) == (ms(7, 14, 17), ms(7, 15, 17))


# --- any interleaving, any cut, any timer, two workers ----------------------------------------------------------------

KINDS = ("special_started", "special_ended", "decided", "withdrawn", "voided")


def histories(rng: random.Random) -> list[dict[str, Any]]:
    events = []
    for number in range(8):
        at = ACCEPTED + rng.randrange(0, 300) * HOUR
        more = {"item_code": rng.choice((LAND, PLAN)), "project_code": f"P-{1 + number % 3}"}
        more_kinds = rng.choices(KINDS, k=rng.randrange(4)) if number else []  # the first one is left lying
        for place, kind in enumerate(("submitted", "accepted", *more_kinds)):
            at += rng.randrange(0, 300) * HOUR
            late = rng.choice((0, 0, 0, 5, 100)) * HOUR
            events.append(case(kind, f"C-{number}", at, at + late, event_no=place + 1, **more))
    return sorted(events, key=lambda e: e["received_at"])


def play(engine: sa.Engine, seed: int, order: random.Random) -> None:
    """The history of ``seed`` by two workers, each with half of the partitions, which read and tick as they like."""
    events, log = histories(random.Random(seed)), Log()
    put(engine, ScheduleProjection(), log, calendar())
    put(engine, DefineProjection(), log, published(LAND, "R6-5"), published(PLAN, "R6-6"))
    workers = [(JudgeProjection(), [e for e in events if int(e["case_no"][-1]) % 2 == half]) for half in (0, 1)]
    ahead = 0
    while any(left for _, left in workers):
        judge, left = order.choice(workers)
        piece = left[: order.randrange(0, 6)]
        del left[: len(piece)]
        if piece:
            put(engine, judge, log, *piece)
        ahead = min((rest[0]["received_at"] - 1 for _, rest in workers if rest), default=ahead)
        if order.random() < 0.5:
            settle(engine, judge, {p: ahead for p in range(8) if p % 2 == workers.index((judge, left))})
    for _ in range(2):
        for half, (judge, _) in enumerate(workers):
            settle(engine, judge, {p: ACCEPTED + 9000 * HOUR for p in range(8) if p % 2 == half})


@pytest.fixture
def two_engines(postgres: Any) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    names = [f"groups_{uuid.uuid4().hex[:10]}" for _ in range(2)]
    engines = [sa.create_engine(postgres.create(name, template="govbus_template")) for name in names]
    yield engines[0], engines[1]
    for engine, name in zip(engines, names, strict=True):
        engine.dispose()
        postgres.drop(name)


def dump(engine: sa.Engine, tables: Sequence[sa.Table]) -> dict[str, list[tuple[Any, ...]]]:
    columns = {t.name: [c for c in t.c if c.name not in ("partition", "offset")] for t in tables}
    return {name: sorted(rows(engine, sa.select(*c)), key=repr) for name, c in columns.items()}


@pytest.mark.parametrize("seed", range(6))
def test_two_workers_in_any_order_derive_the_same_groups_and_the_same_cards(
    two_engines: tuple[sa.Engine, sa.Engine], seed: int
) -> None:
    first, second = two_engines
    play(first, seed, random.Random(seed + 100))
    play(second, seed, random.Random(seed + 200))
    tables = (case_state, case_group, group_state, card)
    one, other = dump(first, tables), dump(second, tables)
    assert len(one["group_state"]) == 3
    assert group_cards(first)
    assert one == other
    standing = rows(first, sa.select(alert_said.c.alert_id).where(alert_said.c.action != "RETRACTED"))
    assert sorted(standing) == sorted(rows(first, sa.select(card.c.alert_id)))
