"""The simulated district and the product agree, from the publisher to the tables, without a broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from kafka.partitioner.default import murmur2

from govbus import recount
from govbus.district import oracle
from govbus.district.clock import at
from govbus.district.generator import SPAN, Made, make
from govbus.district.model import Item, Story, Told
from govbus.district.publishing import Departments, Raw, raws
from schemas.topics import INBOUND, RATING, Topic
from streams.agents import projections
from streams.store.applier import apply_batch, aside, tick
from streams.store.projection import Aside, Carried

CASES = 300
POSITIVE = 0x7FFFFFFF
FAR = oracle.FAR


@pytest.fixture(scope="module")
def made() -> Made:
    """A small district, the same for every test."""
    return make(seed=20200518, count=CASES, live=50)


def log_of(engine: sa.Engine, poison: Sequence[Raw]) -> dict[Topic, list[Carried]]:
    """What Kafka would carry: the outbox in order, all sent, then the poison, by partition."""
    found: dict[Topic, list[Carried]] = {}
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE outbox SET sent_partition = 0, sent_offset = seq, sent_at = queued_at"))
        for topic in INBOUND:
            sql = "SELECT key, value, headers FROM outbox WHERE topic = :t ORDER BY seq"
            sent = [(k.encode(), bytes(v), h) for k, v, h in tx.execute(sa.text(sql), {"t": topic.name})]
            sent += [(r.key, r.value, r.headers) for r in poison if r.topic is topic]
            found[topic] = _numbered(topic, sent)
    return found


def _numbered(topic: Topic, sent: Sequence[tuple[bytes, bytes, object]]) -> list[Carried]:
    next_offset: dict[int, int] = defaultdict(int)
    carried = []
    for key, value, headers in sent:
        partition = (murmur2(key) & POSITIVE) % topic.partitions
        carried.append(Carried(topic, partition, next_offset[partition], key, value, _headers(headers)))
        next_offset[partition] += 1
    return carried


def _headers(headers: object) -> tuple[tuple[str, bytes], ...]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name, value if isinstance(value, bytes) else value.encode()) for name, value in pairs)  # type: ignore[attr-defined]


BAD_SQL = """
SELECT count(*) FROM (
    SELECT DISTINCT ON (region, case_no, service_no, department, assess_no) * FROM rating_event WHERE NOT is_default
    ORDER BY region, case_no, service_no, department, assess_no, revision DESC) AS r
LEFT JOIN case_state c USING (case_no) WHERE score <= 2 AND operation <> 'D' AND c.status IS DISTINCT FROM 'VOID'"""


def run(engine: sa.Engine, made: Made) -> None:
    """Publish the district and apply its log, chunk by chunk, then let the timers reach the year's end."""
    Departments(engine).publish([*made.district.rows, *made.district.live])
    logs = log_of(engine, raws(made.district.poison))
    for projection in sorted(projections(), key=lambda p: p.topic is RATING):  # last: it has to hear of void cases
        carried = logs[projection.topic]
        for start in range(0, len(carried), 500):
            apply_batch(engine, projection, carried[start : start + 500])
        if hasattr(projection, "tick"):
            for partition in range(projection.topic.partitions):
                while tick(engine, projection, partition, SPAN.end):  # type: ignore[arg-type]
                    pass
        while isinstance(projection, Aside) and aside(engine, projection.speak):
            pass


@pytest.mark.stack
def test_the_product_and_the_simulator_agree_on_every_case_rating_licence_and_dead_letter(
    engine: sa.Engine, made: Made
) -> None:
    run(engine, made)
    expected = oracle.expect(made)
    assert oracle.compare(engine, expected) == []
    with engine.connect() as tx:
        again = recount.recount(tx)
        cases = tx.execute(sa.text("SELECT count(*) FROM case_state")).scalar_one()
        bad = tx.execute(sa.text(BAD_SQL)).scalar_one()
    no_desk = {"差评预警尚未到达监察台": bad}  # their alerts are said, and nobody reads them here
    assert (again.differences, again.checked["办结与按时"], dict(again.left_out)) == ([], cases, no_desk)
    assert bad > 0
    planted = "UPDATE case_state SET status = 'VOID' WHERE case_no = (SELECT min(case_no) FROM case_state)"
    with engine.begin() as tx:
        tx.execute(sa.text(planted))
        tx.execute(sa.text("DELETE FROM rating_event WHERE event_id = (SELECT event_id FROM rating_event LIMIT 1)"))
    found = oracle.compare(engine, expected)
    assert len(found) == 2
    assert f"events {RATING.name}" in found[0]
    assert "found {'status': 'VOID'" in found[1]


# --- the oracle by hand: where simulator and product once disagreed ---


def ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return at(moment.date(), moment.hour * 60 + moment.minute) + moment.second * 1_000


def told(event: str, occurred: str, heard: str | None = None, **fields: Any) -> Told:
    return Told(f"case.{event}", ms(occurred), ms(heard or occurred), fields)


def story(promise: float, statutory: float | None, *events: Told) -> Story:
    item = Item("I", 1, "", "430903", "HS-SFJ", promise, statutory, date(2019, 1, 1), False)
    return Story("C", item, (item,), tuple(sorted(events, key=lambda t: t.received_at)))


def test_a_decision_heard_within_the_last_minute_is_no_red_card() -> None:
    case = story(
        1, 4, told("submitted", "2020-04-07 09:30"), told("accepted", "2020-04-07 09:33"),
        told("decided", "2020-04-08 13:40", "2020-04-13 17:00:51", result_code="0"),
    )  # fmt: skip
    assert oracle.cards(case, SPAN.end) == ["RED revoked", "YELLOW revoked"]


def test_an_extension_after_the_limit_has_passed_does_not_count() -> None:
    case = story(
        10, None, told("submitted", "2020-08-31 11:16"), told("accepted", "2020-09-09 10:23"),
        told("extended", "2020-09-15 09:25", extension_limit=5.0),
    )  # fmt: skip
    state = oracle.course(case.told, SPAN.end)
    assert state.accepted == ms("2020-08-31 11:16")  # five working days of silence had passed on 09-07
    assert oracle.limits(case, state)[0].due == ms("2020-09-14 17:00")


def test_a_step_after_five_days_of_silence_finds_the_case_accepted() -> None:
    case = story(5, None, told("submitted", "2020-05-12 10:23"), told("step_completed", "2020-05-20 16:03"))
    state = oracle.course(case.told, ms("2020-05-20 16:04"))
    assert (state.status, state.accepted) == ("IN_PROCESS", ms("2020-05-12 10:23"))
    assert oracle.cards(case, SPAN.end) == ["RED"]


def test_a_pause_told_before_the_acceptance_holds_once_silence_has_accepted() -> None:
    start = ms("2020-11-12 15:33")
    case = story(
        5, 10, told("submitted", "2020-11-08 03:40"),
        told("special_started", "2020-11-12 15:33", special_started_at=start),
        told("accepted", "2020-11-11 09:46", "2020-11-13 18:53"),
        told("special_ended", "2020-11-24 13:21", special_started_at=start),
        told("decided", "2020-11-26 13:38", result_code="0"),
    )  # fmt: skip
    assert oracle.cards(case, SPAN.end) == []


def test_a_card_that_came_in_a_pause_told_late_is_taken_back_and_comes_again() -> None:
    case = story(
        5, None, told("submitted", "2020-11-09 09:30"), told("accepted", "2020-11-09 10:00"),
        told("special_started", "2020-11-16 10:00", "2020-11-20 09:00", special_started_at=ms("2020-11-16 10:00")),
        told("special_ended", "2020-11-17 10:00", "2020-11-20 09:00", special_started_at=ms("2020-11-16 10:00")),
    )  # fmt: skip
    assert oracle.cards(case, SPAN.end) == ["RED", "RED revoked", "YELLOW"]


def test_a_paused_case_that_goes_on_is_in_process_and_one_with_another_pause_is_not() -> None:
    first, second = ms("2025-03-10 10:00"), ms("2025-03-12 10:00")
    events = [
        told("accepted", "2025-03-03 09:30"),
        told("special_started", "2025-03-12 10:00", special_started_at=second),
        told("special_ended", "2025-03-14 15:00", special_started_at=first),
    ]
    assert oracle.course(events, FAR).status == "SUSPENDED"
    events.append(told("special_ended", "2025-03-20 15:00", special_started_at=second))
    state = oracle.course(events, FAR)
    assert state.status == "IN_PROCESS"
    assert oracle.limits(story(20, None, *events), state)[0].due == ms("2025-04-14 14:00")
