"""Records, effects and cursor move together or not at all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.errors import Retryable
from schemas.topics import TICKET
from streams.store import applier
from streams.store import engine as engines
from streams.store.count import TicketProjection
from streams.store.projection import Carried
from streams.store.tables import cursor, dead_letter, outbox, ticket_event

pytestmark = pytest.mark.stack


def tickets(carrying: Any, count: int, partition: int = 0) -> list[Carried]:
    made = (
        carrying.record("ticket.opened", n, ticket_no=f"T{partition}-{n}", event_no=1) for n in range(count)
    )
    return list(carrying.log(TICKET, made, partition))


def stored(engine: sa.Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(ticket_event)).scalar_one())


def at(engine: sa.Engine, partition: int = 0) -> tuple[int, int]:
    with engine.connect() as tx:
        query = sa.select(cursor.c.next_offset, cursor.c.watermark).where(cursor.c.partition == partition)
        row = tx.execute(query).one_or_none()
        return (row.next_offset, row.watermark) if row else (0, 0)


class Breaking(TicketProjection):
    """Does its work, then loses the connection, as if the server had been killed before the commit."""

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        super().apply(tx, carried)
        tx.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))


class Faulty(TicketProjection):
    """Does its work, then meets a fault of the program."""

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        super().apply(tx, carried)
        raise ZeroDivisionError


def test_a_chunk_moves_rows_cursor_and_watermark_together(engine: sa.Engine, carrying: Any) -> None:
    done = applier.apply_batch(engine, TicketProjection(), tickets(carrying, 5))
    assert (done.next_offsets, done.applied, done.dropped) == ({0: 5}, 5, 0)
    assert stored(engine) == 5
    assert at(engine) == (5, carrying.START + 4_500)


def test_a_chunk_handed_over_again_changes_nothing(engine: sa.Engine, carrying: Any) -> None:
    applier.apply_batch(engine, TicketProjection(), tickets(carrying, 5))
    again = applier.apply_batch(engine, TicketProjection(), tickets(carrying, 5))
    assert (again.applied, again.dropped) == (0, 5)
    assert stored(engine) == 5


def test_a_chunk_that_overlaps_is_applied_from_the_cursor_on(engine: sa.Engine, carrying: Any) -> None:
    all_of_them = tickets(carrying, 8)
    applier.apply_batch(engine, TicketProjection(), all_of_them[:5])
    done = applier.apply_batch(engine, TicketProjection(), all_of_them[3:])
    assert (done.applied, done.dropped, stored(engine)) == (3, 2, 8)


def test_an_old_chunk_of_a_zombie_changes_nothing_after_its_successor_advanced(
    engine: sa.Engine, carrying: Any
) -> None:
    all_of_them = tickets(carrying, 8)
    applier.apply_batch(engine, TicketProjection(), all_of_them)
    zombie = applier.apply_batch(engine, TicketProjection(), all_of_them[2:6])
    assert (zombie.applied, zombie.next_offsets) == (0, {0: 8})
    assert at(engine)[0] == 8
    assert stored(engine) == 8


def test_a_chunk_above_the_cursor_is_a_gap_and_writes_nothing(engine: sa.Engine, carrying: Any) -> None:
    all_of_them = tickets(carrying, 8)
    applier.apply_batch(engine, TicketProjection(), all_of_them[:2])
    with pytest.raises(applier.Gap) as gap:
        applier.apply_batch(engine, TicketProjection(), all_of_them[5:])
    assert gap.value.next_offsets == {0: 2}
    assert (stored(engine), at(engine)[0]) == (2, 2)


def test_a_hole_of_the_log_itself_is_no_gap(engine: sa.Engine, carrying: Any) -> None:
    all_of_them = tickets(carrying, 8)
    applier.apply_batch(engine, TicketProjection(), all_of_them[:2])
    done = applier.apply_batch(engine, TicketProjection(), all_of_them[5:], since={0: 2})
    assert (done.applied, at(engine)[0]) == (3, 8)


def test_the_cursor_passes_what_the_log_holds_behind_its_last_record(engine: sa.Engine, carrying: Any) -> None:
    chunk = tickets(carrying, 3)
    for _ in range(2):  # a chunk handed over again, and one that a zombie holds
        applier.apply_batch(engine, TicketProjection(), chunk, {0: 0}, None, {0: 4})
        assert (stored(engine), at(engine)[0]) == (3, 4)
    done = applier.apply_batch(engine, TicketProjection(), [], {0: 4, 1: 0}, None, {0: 6, 1: 1})
    assert (done.next_offsets, at(engine, 0)[0], at(engine, 1)[0]) == ({0: 6, 1: 1}, 6, 1)
    applier.apply_batch(engine, TicketProjection(), [], {0: 3}, None, {0: 5})
    assert at(engine) == (6, carrying.START + 2_500)


def test_what_the_log_holds_behind_records_that_were_never_read_is_a_gap(engine: sa.Engine, carrying: Any) -> None:
    applier.apply_batch(engine, TicketProjection(), tickets(carrying, 3), {0: 0}, None, {0: 3})
    with pytest.raises(applier.Gap) as gap:
        applier.apply_batch(engine, TicketProjection(), [], {0: 5}, None, {0: 6})
    assert (gap.value.next_offsets, at(engine)[0]) == ({0: 3}, 3)


def test_a_log_whose_beginning_was_deleted_is_read_from_where_it_begins(
    engine: sa.Engine, carrying: Any
) -> None:
    done = applier.apply_batch(engine, TicketProjection(), tickets(carrying, 8)[5:], since={0: 0})
    assert (done.applied, at(engine)[0]) == (3, 8)


def test_a_connection_lost_before_the_commit_leaves_nothing_and_may_be_tried_again(
    database: str, engine: sa.Engine, carrying: Any
) -> None:
    chunk = tickets(carrying, 5)
    own = engines.connect(database)
    with pytest.raises(Retryable):
        applier.apply_batch(own, Breaking(), chunk)
    assert (stored(engine), at(engine)) == (0, (0, 0))
    applier.apply_batch(own, TicketProjection(), chunk)
    own.dispose()
    assert (stored(engine), at(engine)[0]) == (5, 5)


def test_a_fault_of_the_program_leaves_nothing_and_is_not_retryable(engine: sa.Engine, carrying: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        applier.apply_batch(engine, Faulty(), tickets(carrying, 5))
    assert (stored(engine), at(engine)) == (0, (0, 0))


def test_a_database_that_is_not_there_is_retryable(carrying: Any) -> None:
    nowhere = engines.connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Retryable):
        applier.apply_batch(nowhere, TicketProjection(), tickets(carrying, 1))


def test_two_processes_with_the_same_chunk_apply_it_once(database: str, carrying: Any) -> None:
    own = engines.connect(database)
    chunk, applied = tickets(carrying, 200), []
    applier.apply_batch(own, TicketProjection(), chunk[:1])  # from now on no insertion makes them wait in turn

    def work() -> None:
        applied.append(applier.apply_batch(own, TicketProjection(), chunk).applied)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [0, 0, 0, 199]
    assert stored(own) == 200
    own.dispose()


class Watched(TicketProjection):
    """While it works it asks from another connection whether the cursor's row is held."""

    def __init__(self, other: sa.Engine) -> None:
        self.other = other
        self.held: list[bool] = []

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        super().apply(tx, carried)
        self._ask()

    def tick(self, _: sa.Connection, __: int, ___: int) -> bool:
        self._ask()
        return False

    def _ask(self) -> None:
        try:
            with self.other.begin() as tx:
                tx.execute(sa.text("SELECT 1 FROM cursor WHERE partition = 0 FOR UPDATE NOWAIT"))
            self.held.append(False)
        except sa.exc.OperationalError as error:
            self.held.append("could not obtain lock" in str(error))


def test_records_and_timers_are_applied_under_the_lock_of_their_cursor(
    database: str, engine: sa.Engine, carrying: Any
) -> None:
    chunk = tickets(carrying, 3)
    applier.apply_batch(engine, TicketProjection(), chunk[:1])
    watched = Watched(engines.connect(database))
    applier.apply_batch(engine, watched, chunk)
    applier.tick(engine, watched, 0, 77)
    watched._ask()
    watched.other.dispose()
    assert watched.held == [True, True, False]


def test_a_gap_in_one_partition_holds_the_whole_transaction(engine: sa.Engine, carrying: Any) -> None:
    zero, one = tickets(carrying, 3, 0), tickets(carrying, 3, 1)
    with pytest.raises(applier.Gap) as gap:
        applier.apply_batch(engine, TicketProjection(), [*zero, *one[1:]])
    assert gap.value.next_offsets == {1: 0}
    done = applier.apply_batch(engine, TicketProjection(), [*zero, *one])
    assert (done.next_offsets, stored(engine)) == ({0: 3, 1: 3}, 6)


def test_poison_is_buried_with_its_bytes_and_the_rest_goes_on(engine: sa.Engine, carrying: Any) -> None:
    good = tickets(carrying, 3)
    source = (("ce_source", b"/430903/HS-QZRXB"), ("ce_time", b"2020-09-13T12:26:40.000Z"))
    poison = Carried(TICKET, 0, 1, b"T0-1\x00", b"\x00\x00\x00\x00\x08\xff", source)
    applier.apply_batch(engine, TicketProjection(), [good[0], poison, good[2]])
    with engine.connect() as tx:
        dead = tx.execute(sa.select(dead_letter)).one()
        said = tx.execute(sa.select(outbox.c.topic, outbox.c.received_at)).all()
    assert (dead.original, dead.key, dead.partition, dead.offset) == (poison.value, poison.key, 0, 1)
    assert (dead.department, dead.region, dead.occurred_at) == ("HS-QZRXB", "430903", 1_600_000_000_000)
    assert dead.reason == "malformed_avro"
    assert said == [("bus.deadletter.v1", 1_600_000_000_000)]
    assert (stored(engine), at(engine)[0]) == (2, 3)


def test_a_dead_record_does_not_move_the_watermark(engine: sa.Engine, carrying: Any) -> None:
    late = carrying.carry(TICKET, carrying.record("ticket.opened", 10_000, ticket_no="T", event_no=1), 0)
    forged = Carried(TICKET, 0, 0, b"another", late.value, late.headers)
    applier.apply_batch(engine, TicketProjection(), [forged])
    assert at(engine) == (1, 0)


class Ticks(TicketProjection):
    """Remembers the horizons it was given; has work left once."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def tick(self, _: sa.Connection, partition: int, horizon: int) -> bool:
        self.seen.append((partition, horizon))
        return len(self.seen) == 1


def test_a_tick_tells_what_is_left(engine: sa.Engine) -> None:
    ticks = Ticks()
    assert applier.tick(engine, ticks, 3, 77) is True
    assert applier.tick(engine, ticks, 3, 78) is False
    assert ticks.seen == [(3, 77), (3, 78)]


class Blocks(TicketProjection):
    """Has so many blocks left in each partition; from the second pass on, two partitions must be in work at once."""

    def __init__(self, left: dict[int, int]) -> None:
        self.left = left
        self.seen: Counter[int] = Counter()
        self.beside = threading.Barrier(2)

    def tick(self, _: sa.Connection, partition: int, __: int) -> bool:
        self.seen[partition] += 1
        if self.seen[partition] > 1:
            self.beside.wait(30)
        return self.seen[partition] < self.left[partition]


def test_a_sweep_does_what_the_first_pass_leaves_side_by_side_until_nothing_is_left(engine: sa.Engine) -> None:
    blocks = Blocks({0: 3, 1: 3, 2: 1})
    left: list[int] = []

    def go_on(partitions: int) -> bool:
        left.append(partitions)
        return True

    applier.sweep(engine, blocks, {0: 7, 1: 7, 2: 7}, go_on)
    assert (blocks.seen, left) == ({0: 3, 1: 3, 2: 1}, [3, 2, 2])


def test_a_sweep_stops_when_something_more_urgent_waits(engine: sa.Engine) -> None:
    blocks = Blocks({0: 3, 1: 3})
    applier.sweep(engine, blocks, {0: 7, 1: 7}, lambda _: not blocks.seen)
    assert blocks.seen == {0: 1, 1: 1}
