"""The horizon never passes an event that is published but not applied."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from schemas.topics import ALERT, CALENDAR, CASE, TICKET
from streams.store import horizon
from streams.store.horizon import Place, Waiting
from streams.store.tables import cursor, outbox


def unsent(key: str, topic: str, received_at: int, sent_at: int | None = None) -> dict[str, Any]:
    """An outbox row; only what the horizon looks at differs."""
    uid = sa.text("gen_random_uuid()")
    return {
        "event_id": uid, "topic": topic, "key": key, "region": "430903", "department": "HS-SLJ",
        "occurred_at": 1, "received_at": received_at, "digest": uid, "content_digest": uid, "value": b"",
        "headers": [], "sent_at": sent_at,
    }  # fmt: skip


def test_a_partition_that_lags_stands_at_its_watermark() -> None:
    assert horizon.horizon(Place(5, 1000), 6, 9000, Waiting()) == 1000


def test_a_partition_whose_end_is_unknown_stands_at_its_watermark() -> None:
    assert horizon.horizon(Place(5, 1000), None, 9000, Waiting()) == 1000


def test_a_partition_that_is_caught_up_reaches_the_ceiling() -> None:
    assert horizon.horizon(Place(5, 1000), 5, 9000, Waiting()) == 9000


def test_an_unsent_event_holds_every_caught_up_partition_just_before_it() -> None:
    assert horizon.horizon(Place(5, 1000), 5, 9000, Waiting(4000)) == 3999


def test_the_horizon_never_falls_below_what_was_applied() -> None:
    assert horizon.horizon(Place(5, 5000), 5, 9000, Waiting(4000)) == 5000


@pytest.mark.parametrize(("end", "reached"), [(5, 3999), (6, 3999), (None, 3999)])
def test_what_was_applied_after_a_calendar_that_waits_lets_no_timer_speak(end: int | None, reached: int) -> None:
    """By the calendar before it a card may be wrong, however busy the partition is."""
    assert horizon.horizon(Place(5, 5000), end, 9000, Waiting(elsewhere=4000)) == reached
    assert horizon.horizon(Place(5, 1000), end, 9000, Waiting(elsewhere=4000)) == (3999 if end == 5 else 1000)


@pytest.mark.parametrize(
    ("end", "unsent", "reached"), [(5, None, 9000), (5, 8000, 7999), (6, None, 0), (None, None, 0)]
)
def test_one_event_received_in_the_future_says_nothing_of_how_far_the_others_are_known(
    end: int | None, unsent: int | None, reached: int
) -> None:
    """A worker that comes back with such a partition's backlog would call late what was done while it was away."""
    assert horizon.horizon(Place(5, 90_000), end, 9000, Waiting(unsent)) == reached


def test_an_empty_partition_that_nobody_read_follows_the_ceiling() -> None:
    assert horizon.horizons({}, {3: 0}, [3], 9000, Waiting()) == {3: 9000}


@pytest.mark.stack
def test_only_unsent_inbound_events_hold_the_horizon(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        for row in (
            unsent("a", CASE.name, 500, sent_at=1), unsent("b", ALERT.name, 600), unsent("c", TICKET.name,
            800), unsent("d", CASE.name, 700),
        ):  # fmt: skip
            tx.execute(sa.insert(outbox).values(row))
        assert horizon.waiting(tx) == (700, None)


@pytest.mark.stack
def test_a_calendar_that_is_sent_and_not_applied_holds_every_timer(engine: sa.Engine) -> None:
    """Its processor may be at another worker, or away: by the calendar before it a card may be wrong."""
    sent = {"sent_at": 1, "sent_partition": 0}
    with engine.begin() as tx:
        for n, received_at in enumerate((300, 400)):
            row = {**unsent("430903", CALENDAR.name, received_at), **sent, "sent_offset": n}
            tx.execute(sa.insert(outbox).values(row))
        assert horizon.waiting(tx) == (None, 300)
        place = {"processor": "schedule", "topic": CALENDAR.name, "partition": 0, "watermark": 0}
        tx.execute(sa.insert(cursor).values(**place, next_offset=1))
        assert horizon.waiting(tx) == (None, 400)
        tx.execute(sa.update(cursor).values(next_offset=2))
        assert horizon.waiting(tx) == (None, None)
        tx.execute(sa.insert(outbox).values(unsent("430903", CALENDAR.name, 500)))
        assert horizon.waiting(tx) == (500, 500)


@pytest.mark.stack
def test_a_word_of_an_alert_that_is_not_sent_holds_the_desk_alone(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        for key, at, sent in (("a", 100, 1), ("b", 600, None), ("c", 700, None)):
            tx.execute(sa.insert(outbox).values(unsent(key, ALERT.name, at, sent_at=sent)))
        assert (horizon.waiting(tx), horizon.waiting(tx, ALERT)) == ((None, None), (None, 600))


@pytest.mark.stack
def test_nothing_unsent_holds_nothing(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        assert horizon.waiting(tx) == (None, None)


@pytest.mark.stack
def test_under_the_watermark_clock_the_ceiling_is_the_newest_event_applied_or_sent(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        assert horizon.ceiling(tx, "watermark", 200, 99_000) == 0
        tx.execute(
            sa.insert(cursor).values(processor="p", topic=CASE.name, partition=0, next_offset=1, watermark=40)
        )
        assert horizon.ceiling(tx, "watermark", 200, 99_000) == 40
        tx.execute(sa.insert(outbox).values(unsent("a", CASE.name, 70, sent_at=1)))
        tx.execute(sa.insert(outbox).values(unsent("b", CASE.name, 90)))
        tx.execute(sa.insert(outbox).values(unsent("c", ALERT.name, 95, sent_at=1)))
        assert horizon.ceiling(tx, "watermark", 200, 99_000) == 70


@pytest.mark.stack
def test_under_the_wall_clock_the_ceiling_is_now_less_the_time_to_settle(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        assert horizon.ceiling(tx, "wall", 200, 99_000) == 98_800


@pytest.mark.stack
def test_a_host_whose_clock_is_ahead_reaches_no_further_than_the_databases(engine: sa.Engine) -> None:
    with engine.connect() as tx:
        now = tx.execute(sa.text("SELECT (extract(epoch FROM now()) * 1000)::bigint")).scalar_one()
        assert horizon.ceiling(tx, "wall", 200, now + 600_000) == now - 200
        assert horizon.ceiling(tx, "wall", 200, now - 600_000) == now - 600_200
