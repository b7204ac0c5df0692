"""Cases through PostgreSQL: stored, judged by events and by the timer, said once, and the same whatever the
order.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from connectors.intake.calendar import calendar_row
from schemas import codec, envelope
from schemas.topics import ALERT, CALENDAR, CASE, ITEM, Topic
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier, horizon, migrate, outbox
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import STATE_TABLES, card, case_history, case_state, dead_letter
from streams.store.tables import outbox as outbox_table

pytestmark = pytest.mark.stack
CODE = "11430903MBDEM0138T4000715002000"
HOUR = 3_600_000


def ms(year: int, month: int, day: int, hour: int, minute: int = 0) -> int:
    return epoch_ms(day_of(date(year, month, day)) * DAY_MINUTES + hour * 60 + minute)


def record(topic: Topic, kind: str, at: int, received: int, **more: Any) -> dict[str, Any]:
    made = {
        "event_type": kind,
        "region": "430903",
        "department": "HS-ZRZYJ",
        "occurred_at": at,
        "received_at": received,
        **more,
    }
    return {**made, "event_id": str(envelope.event_id(topic, made))}


def case(kind: str, case_no: str, at: int, received: int | None = None, **more: Any) -> dict[str, Any]:
    received = at if received is None else received
    return record(
        CASE, f"case.{kind}", at, received, **{"event_no": 1, "case_no": case_no, "item_code": CODE, **more}
    )


def published_item(promise: float, code: str = CODE) -> dict[str, Any]:
    return record(
        ITEM,
        "item.published",
        1,
        1,
        item_code=code,
        item_version=1,
        name="不动产登记",
        promise_limit=promise,
        promise_unit_code="1",
        statutory_limit=promise + 5,
        statutory_unit_code="1",
        effective_on=date(2004, 1, 1),
    )


def published_calendar(year: int, received: int, revision: int = 1, **more: Any) -> dict[str, Any]:
    row = {
        **calendar_row(year, occurred_at=1, department="HS-XZSPJ", revision=revision),
        "received_at": received,
        **more,
    }
    return {**row, "event_id": str(envelope.event_id(CALENDAR, row))}


class Log:
    """Offsets of one partition a topic."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def carry(self, topic: Topic, records: Sequence[dict[str, Any]]) -> list[Carried]:
        return [self._one(topic, r) for r in records]

    def _one(self, topic: Topic, made: dict[str, Any]) -> Carried:
        offset = self._next[topic.name] = self._next.get(topic.name, -1) + 1
        value = codec.encode(topic, made)
        whole = codec.decode(value, topic)
        key = str(whole[topic.key]).encode()
        return Carried(topic, 0, offset, key, value, tuple(envelope.headers(topic, whole)))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def judge() -> JudgeProjection:
    return JudgeProjection()


def put(engine: sa.Engine, projection: Projection, log: Log, *records: dict[str, Any]) -> None:
    applier.apply_batch(engine, projection, log.carry(projection.topic, records))


def settle(engine: sa.Engine, judge: JudgeProjection, horizon: int) -> None:
    while applier.tick(engine, judge, 0, horizon):
        pass


def rows(engine: sa.Engine, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    with engine.connect() as tx:
        return [tuple(row) for row in tx.execute(query)]


def cards(engine: sa.Engine) -> list[tuple[Any, ...]]:
    return rows(
        engine,
        sa.select(card.c.case_no, card.c.colour, card.c.issued_at, card.c.revoked_reason).order_by(
            card.c.case_no, card.c.issued_at, card.c.colour
        ),
    )


def said(engine: sa.Engine) -> list[tuple[str, str, int]]:
    with engine.connect() as tx:
        alerts_only = sa.select(outbox_table.c.value).where(outbox_table.c.topic == ALERT.name)
        values = tx.execute(alerts_only.order_by(outbox_table.c.seq)).scalars()
        alerts = [codec.decode(bytes(v)) for v in values]
    return [(a["event_type"], a["colour_code"], a["alert_seq"]) for a in alerts]


ACCEPTED = ms(2020, 10, 12, 10)


def test_the_timer_issues_the_cards_of_a_silent_case(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, published_item(5))
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    settle(engine, judge, ms(2020, 10, 16, 16, 59))
    assert cards(engine) == []
    settle(engine, judge, ms(2020, 10, 19, 17, 1))
    assert cards(engine) == [
        ("C-1", "YELLOW", ms(2020, 10, 16, 17), ""),
        ("C-1", "RED", ms(2020, 10, 19, 17, 1), ""),
    ]
    settle(engine, judge, ms(2020, 10, 19, 18))
    assert said(engine) == [("alert.issued", "YELLOW", 1), ("alert.issued", "RED", 1)]


def test_the_timer_keeps_silent_about_a_case_whose_event_is_still_in_the_outbox(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, published_item(5))
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    with engine.begin() as tx:
        outbox.enqueue(tx, [outbox.row(CASE, case("decided", "C-1", ms(2020, 10, 16, 16)))])
    settle(engine, judge, ms(2020, 10, 20, 9))
    assert cards(engine) == []


def test_an_event_received_in_the_future_makes_no_other_case_late(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, published_item(5))
    ahead = ACCEPTED + 30 * 24 * HOUR  # the clock of the host that published it
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED), case("submitted", "C-2", ACCEPTED, ahead))
    now = ACCEPTED + HOUR
    with engine.connect() as tx:
        at = horizon.places(tx, judge.name, CASE)
        top = horizon.ceiling(tx, "wall", 200, now)
    for end in (2, 3):
        settle(engine, judge, horizon.horizons(at, {0: end}, [0], top, horizon.Waiting())[0])
    assert {case_no for case_no, *_ in cards(engine)} == {"C-2"}  # what its own event knows holds for it
    assert rows(engine, sa.select(case_state.c.known_at).order_by("case_no")) == [(ACCEPTED,), (ahead,)]


def test_a_card_goes_with_the_case_to_the_department_that_is_named_responsible_later(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, published_item(5))
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    settle(engine, judge, ms(2020, 10, 20, 9))
    before = cards(engine)
    put(engine, judge, log, case("step_completed", "C-1", ms(2020, 10, 20, 10), responsible_code="HS-GAJ"))
    assert cards(engine) == before != []
    assert set(rows(engine, sa.select(card.c.department))) == {("HS-GAJ",)}


def test_an_item_that_arrives_after_its_case_gives_it_a_clock(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    assert rows(engine, sa.select(case_state.c.due_at)) == [(None,)]
    put(engine, DefineProjection(), log, published_item(5))
    settle(engine, judge, ms(2020, 10, 13, 9))
    assert rows(engine, sa.select(case_state.c.due_at)) == [(ms(2020, 10, 19, 17),)]


def test_a_handling_item_that_arrives_after_its_case_gives_it_a_clock_and_so_does_its_item_before(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    for number, code in enumerate((CODE + "01", CODE + "001")):  # the second is no code of a handling item
        put(engine, judge, log, case("accepted", f"C-{number}", ACCEPTED, item_code=code))
    its_item, of_its_own = published_item(5), published_item(3, CODE + "01")
    for item, due in ((its_item, ms(2020, 10, 19, 17)), (of_its_own, ms(2020, 10, 15, 17))):
        put(engine, DefineProjection(), log, item)
        settle(engine, judge, ms(2020, 10, 13, 9))
        assert rows(engine, sa.select(case_state.c.due_at).order_by(case_state.c.case_no)) == [(due,), (None,)]


@pytest.mark.parametrize(
    ("changed", "received", "marked"),
    [
        (date(2020, 3, 2), ms(2020, 10, 14, 9), False),  # a day that the case does not count
        (date(2020, 10, 15), ms(2020, 10, 14, 9), True),  # one that it does
        (date(2020, 3, 2), ms(2020, 10, 12, 12), True),  # published before the newest event, applied after it
    ],
)
def test_a_revised_calendar_has_those_judged_again_whom_it_may_concern(
    engine: sa.Engine, log: Log, judge: JudgeProjection, changed: date, received: int, marked: bool
) -> None:
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, published_item(5))
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED), case("step_completed", "C-1", ms(2020, 10, 13, 9)))
    revised = published_calendar(2020, received, revision=2)
    off = {"day": changed, "working": False, "name": ""}
    put(engine, ScheduleProjection(), log, {**revised, "days": [*revised["days"], off]})
    [(mark,)] = rows(engine, sa.select(case_state.c.next_check_at))
    assert (mark == -received) if marked else (mark > received)


def test_30_a_version_that_promises_more_than_the_law_allows_is_quarantined(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    wrong = record(ITEM, "item.published", 1, 1, item_code=CODE, item_version=1, name="事项", promise_limit=30.0,
                   promise_unit_code="1", statutory_limit=20.0, statutory_unit_code="1",
                   effective_on=date(2004, 1, 1))  # fmt: skip
    put(engine, ScheduleProjection(), log, published_calendar(2020, 1))
    put(engine, DefineProjection(), log, wrong)
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    assert rows(engine, sa.select(dead_letter.c.reason, dead_letter.c.field)) == [("rule_failed", "promise_limit")]
    assert rows(engine, sa.select(case_state.c.due_at)) == [(None,)]


def test_copies_of_an_item_that_differ_are_told_and_taken_back_by_the_version_that_mends_them(
    engine: sa.Engine, log: Log
) -> None:
    copies = [{"element": "materials", "channel": c, "digest": d} for c, d in (("ONLINE", "a"), ("OFFLINE", "b"))]
    first = {**published_item(5), "elements": copies}
    second = record(ITEM, "item.published", 2, 2, **{k: first[k] for k in ("item_code", "name", "promise_limit",
                    "promise_unit_code", "effective_on")}, item_version=2)  # fmt: skip
    put(engine, DefineProjection(), log, first)
    put(engine, DefineProjection(), log, second)
    found = rows(engine, sa.select(card.c.case_no, card.c.rule_id, card.c.revoked_reason))
    assert found == [(f"item/{CODE}", "element_mismatch", "item_revised")]
    assert [s[0] for s in said(engine)] == ["alert.issued", "alert.revoked"]


def test_an_event_delivered_three_times_counts_once(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    once = case("accepted", "C-1", ACCEPTED)
    put(engine, judge, log, once, once)
    put(engine, judge, log, once)
    [(folded,)] = rows(engine, sa.select(case_history.c.folded))
    assert len(folded["events"]) == 1


def test_a_case_of_the_release_before_its_history_stood_apart_is_as_it_was(
    engine: sa.Engine, log: Log, judge: JudgeProjection
) -> None:
    put(engine, judge, log, case("accepted", "C-1", ACCEPTED))
    later = [rows(engine, sa.select(table)) for table in (case_state, case_history)]
    with engine.begin() as tx:
        command.downgrade(migrate.config(tx), "0005")
        assert set(tx.execute(sa.text("SELECT state FROM case_state")).scalar_one()) > {"events", "alerts", "deemed"}
        command.upgrade(migrate.config(tx), "head")
    assert [rows(engine, sa.select(table)) for table in (case_state, case_history)] == later


def test_the_applied_case_holds_no_personal_data(engine: sa.Engine, log: Log, judge: JudgeProjection) -> None:
    put(
        engine,
        judge,
        log,
        case("accepted", "C-1", ACCEPTED, applicant_name="张三", applicant_id="430903190001010015"),
    )
    dump = str([rows(engine, sa.select(table)) for table in (case_state, case_history)])
    assert "张三" not in dump
    assert "430903190001010015" not in dump


# --- any interleaving, any cut, any timer
# ---------------------------------------------------------------------------

KINDS = ("step_completed", "special_started", "special_ended", "extended", "decided", "voided", "withdrawn")


def histories(rng: random.Random) -> list[dict[str, Any]]:
    events = []
    for number in range(12):
        at = ACCEPTED + rng.randrange(0, 200) * HOUR
        for place, kind in enumerate(("submitted", "accepted", *rng.choices(KINDS, k=rng.randrange(5)))):
            at += rng.randrange(0, 60) * HOUR
            late = rng.choice((0, 0, 0, 5, 100)) * HOUR
            more = {"extension_limit": 3.0, "extension_unit_code": "1"} if kind == "extended" else {}
            code = CODE + ("", "01", "02")[number % 3]
            events.append(case(kind, f"C-{number}", at, at + late, event_no=place + 1, item_code=code, **more))
    return sorted(events, key=lambda e: (e["received_at"] + rng.choice((0, 0, 30)) * HOUR, e["event_id"]))


def references(rng: random.Random) -> list[tuple[type[Any], dict[str, Any]]]:
    holiday = {"day": date(2020, 10, 20), "working": False, "name": ""}
    revised = published_calendar(2020, ACCEPTED + rng.randrange(0, 400) * HOUR, revision=2)
    revised["days"] = [*revised["days"], holiday]
    return [
        (ScheduleProjection, published_calendar(2020, 1)),
        (ScheduleProjection, published_calendar(2021, ACCEPTED)),
        (ScheduleProjection, revised),
        (DefineProjection, published_item(rng.choice((0.5, 3, 5)))),
        (DefineProjection, published_item(2, CODE + "02")),
    ]


def dump(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table in STATE_TABLES:
        columns = [c for c in table.c if c.name not in ("partition", "offset")]
        found[table.name] = sorted(rows(engine, sa.select(*columns)), key=repr)
    return found


def play(engine: sa.Engine, seed: int, order: random.Random) -> None:
    """Everything of ``seed``, cut, doubled, interleaved and ticked as ``order`` says."""
    rng, log, judge = random.Random(seed), Log(), JudgeProjection()
    events, waiting = histories(rng), references(rng)
    order.shuffle(waiting)
    while events or waiting:
        if waiting and order.random() < 0.3:
            kind, made = waiting.pop()
            put(engine, kind(), log, made)
        size = order.randrange(0, 15)
        piece, events = events[:size], events[size:]
        put(engine, judge, log, *piece, *order.sample(piece, k=min(len(piece), 2)))
        if order.random() < 0.5:
            settle(engine, judge, ACCEPTED + order.randrange(0, 800) * HOUR)
    settle(engine, judge, ACCEPTED + 5000 * HOUR)


@pytest.fixture
def two_engines(postgres: Any) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    names = [f"judge_{uuid.uuid4().hex[:10]}" for _ in range(2)]
    engines = [sa.create_engine(postgres.create(name, template="govbus_template")) for name in names]
    yield engines[0], engines[1]
    for engine, name in zip(engines, names, strict=True):
        engine.dispose()
        postgres.drop(name)


@pytest.mark.parametrize("seed", range(8))
def test_any_interleaving_with_references_and_timers_ends_in_the_same_tables(
    two_engines: tuple[sa.Engine, sa.Engine], seed: int
) -> None:
    first, second = two_engines
    play(first, seed, random.Random(seed + 100))
    play(second, seed, random.Random(seed + 200))
    one, other = dump(first), dump(second)
    assert one["case_state"]
    assert one["card"]
    assert one == other
