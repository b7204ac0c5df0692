"""Chunks coalesce where they join; an absent database is waited for; a gap is sought back."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from schemas.errors import Retryable
from schemas.topics import TICKET
from streams import batches
from streams.agents import line as lines
from streams.agents.line import Line, contiguous
from streams.batches import Fetched
from streams.store import inflight, quarantine, unfit
from streams.store.applier import Applied, Gap
from streams.store.lot import Columns
from streams.transport import Chunk


def chunk(partition: int, since: int, count: int) -> Chunk:
    records = [SimpleNamespace(offset=since + n, key=b"k", value=b"v" * 10, headers=()) for n in range(count)]
    return Chunk(TICKET.name, partition, since, records)


class Nothing:
    """A projection that is never reached, because applying is replaced."""

    name = "nothing"
    topic = TICKET

    def apply(self, *_: Any) -> None:
        raise AssertionError


def test_chunks_that_follow_each_other_are_one_batch() -> None:
    assert len(contiguous([chunk(0, 0, 5), chunk(1, 7, 2), chunk(0, 5, 3), chunk(1, 9, 1)])) == 1


def test_a_chunk_read_again_after_a_rebalance_begins_a_new_batch() -> None:
    batches = contiguous([chunk(0, 10, 5), chunk(0, 0, 15), chunk(0, 15, 1)])
    assert [[c.since for c in batch] for batch in batches] == [[10], [0, 15]]


async def soon(true: Callable[[], bool]) -> None:
    """Return as soon as ``true()``; whoever called says what is wrong if it never is."""
    for _ in range(6_000):
        if true():
            return
        await asyncio.sleep(0.01)


async def drive(monkeypatch: pytest.MonkeyPatch, answers: list[Any], given: list[Chunk]) -> tuple[list[Any], list[Any]]:
    """Run a line over ``given`` until ``answers`` are used up; what was applied, where it sought back."""
    applied: list[Any] = []
    sought: list[Any] = []
    monkeypatch.setattr(lines, "FIRST_WAIT_S", 0.001)

    def apply_batch(_: Any, __: Any, carried: Any, since: Mapping[int, int], *___: Any) -> Applied:
        applied.append(([c.partition for c in carried], dict(since)))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Applied(answer, len(carried), 0)

    async def seek_back(topic: str, offsets: Mapping[int, int]) -> None:
        sought.append((topic, dict(offsets)))

    async def ends(_: str) -> Mapping[int, int]:
        return {}

    monkeypatch.setattr(unfit, "apply", apply_batch)
    line = Line(None, Nothing())  # type: ignore[arg-type]
    for one in given:
        await line.put(one)
    task = asyncio.create_task(line.run(ends, seek_back))
    while answers and not task.done():
        await asyncio.sleep(0.002)
    await soon(lambda: line.idle or task.done())
    assert not task.done()
    task.cancel()
    return applied, sought


def test_all_that_waits_is_applied_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    applied, _ = asyncio.run(drive(monkeypatch, [{0: 5, 1: 1}], [chunk(0, 0, 3), chunk(1, 0, 1), chunk(0, 3, 2)]))
    assert applied == [([0, 0, 0, 1, 0, 0], {0: 0, 1: 0})]


def test_a_chunk_is_held_until_the_database_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Retryable("away"), Retryable("away"), {0: 2}]
    applied, sought = asyncio.run(drive(monkeypatch, answers, [chunk(0, 0, 2)]))
    assert [partitions for partitions, _ in applied] == [[0, 0]] * 3
    assert sought == []


def test_a_gap_seeks_its_partition_back_and_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Gap(TICKET.name, {0: 4}), {1: 1}]
    applied, sought = asyncio.run(drive(monkeypatch, answers, [chunk(0, 9, 2), chunk(1, 0, 1)]))
    assert sought == [(TICKET.name, {0: 4})]
    assert applied[1] == ([1], {1: 0})


def test_a_chunk_without_records_moves_the_cursor_and_leaves_columns_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = Columns(pl.DataFrame({"offset": [0, 1], "timestamp": [9, 9], "key": [b"k"] * 2, "value": [b"v"] * 2}))
    given = [Chunk(TICKET.name, 0, 0, columns), Chunk(TICKET.name, 0, 2, [], 3), Chunk(TICKET.name, 1, 5, [], 6)]
    asked: list[Any] = []
    monkeypatch.setattr(unfit, "apply", lambda *args: asked.append(args))
    line = Line(None, Nothing())  # type: ignore[arg-type]
    line._apply_now(given, None, None)
    line._apply_now(given[2:], None, None)
    lots = [args[2] for args in asked]
    assert isinstance(lots[0].raws, Columns)
    assert [len(lot) for lot in lots] == [2, 0]
    assert [(since, until) for _, _, _, since, _, until in asked] == [({0: 0, 1: 5}, {0: 3, 1: 6}), ({1: 5}, {1: 6})]


def test_a_full_line_is_saturated_until_it_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "WAITING_RECORDS", 3)

    async def fill() -> Line:
        line = Line(None, Nothing())  # type: ignore[arg-type]
        await line.put(chunk(0, 0, 3))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.put(chunk(0, 3, 1)), 0.05)
        return line

    assert asyncio.run(fill()).saturated


class Slow:
    """A projection that notes when it prepares and applies; applying takes a moment."""

    name = "slow"
    topic = TICKET

    def __init__(self, engine_free: threading.Event) -> None:
        self.told: list[tuple[str, int]] = []
        self._free = engine_free

    def apply(self, *_: Any) -> None:
        raise AssertionError

    def prepare(self, carried: Any) -> int:
        self.told.append(("prepare", len(carried)))
        return len(carried)

    def apply_prepared(self, *_: Any) -> None:
        raise AssertionError


async def overlap(monkeypatch: pytest.MonkeyPatch, later: list[Chunk], ahead: int) -> list[tuple[str, Any]]:
    """Apply one chunk, put ``later`` while it is in the database and ``ahead`` batches are prepared; what happened
    before that one was done, and what was applied after it.
    """
    free = threading.Event()
    slow = Slow(free)
    monkeypatch.setattr(lines, "AHEAD_RECORDS", 4)

    def apply_batch(_: Any, __: Any, lot: Any, ___: Any, prepared: Any, ____: Any) -> Applied:
        slow.told.append(("apply", prepared))
        free.wait(60)
        return Applied({0: int(lot.offsets[-1]) + 1}, len(lot), 0)

    async def nothing(*_: Any) -> Any:
        return {}

    monkeypatch.setattr(unfit, "apply", apply_batch)
    line = Line(None, slow)  # type: ignore[arg-type]
    task = asyncio.create_task(line.run(nothing, nothing))
    await line.put(chunk(0, 0, 1))
    await soon(lambda: bool(slow.told))
    for one in later:
        await line.put(one)
    await asyncio.sleep(0.1)
    await soon(lambda: len(slow.told) > ahead)
    before = list(slow.told)
    free.set()
    await soon(lambda: line.committed == {0: later[-1].end} or task.done())
    assert not task.done()
    assert line.committed == {0: later[-1].end}
    task.cancel()
    return before + [t for t in slow.told[len(before) :] if t[0] == "apply"]


def test_with_much_waiting_the_next_batch_is_prepared_beside_the_one_in_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = asyncio.run(overlap(monkeypatch, [chunk(0, 1, 3), chunk(0, 4, 2)], 1))
    assert told == [("apply", None), ("prepare", 5), ("apply", 5)]


def test_with_little_waiting_nothing_is_prepared_ahead_so_that_batches_can_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = asyncio.run(overlap(monkeypatch, [chunk(0, 1, 3)], 0))
    assert told == [("apply", None), ("apply", None)]


def test_a_fault_while_applying_ends_the_line_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Applied:
        raise ZeroDivisionError

    async def run() -> None:
        line = Line(None, Slow(threading.Event()))  # type: ignore[arg-type]
        await line.put(chunk(0, 0, 1))
        await asyncio.wait_for(line.run(None, None), 60)  # type: ignore[arg-type]

    monkeypatch.setattr(unfit, "apply", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_a_line_is_not_idle_while_a_batch_is_being_applied() -> None:
    """Else the watchdog would take a long transaction for a standstill and end the process."""

    async def scenario() -> tuple[bool, bool]:
        line = Line(cast(Any, None), cast(Any, SimpleNamespace(name="slow", topic=TICKET)))
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def apply(*_: Any, **__: Any) -> None:
            begun.set()
            await go_on.wait()

        line._apply = apply  # type: ignore[method-assign]
        running = asyncio.create_task(line.run(cast(Any, None), cast(Any, None)))
        await line.put(Chunk(TICKET.name, 0, 0, [SimpleNamespace(offset=0, value=b"x")]))
        await begun.wait()
        during = line.idle
        go_on.set()
        await soon(lambda: line.idle)
        running.cancel()
        return during, line.idle

    assert asyncio.run(scenario()) == (False, True)


class Speaking(Nothing):
    """Notes which step it takes beside the applying."""

    aside_s = 0.01

    def __init__(self) -> None:
        self.steps: list[str] = []

    def speak(self, _: Any) -> bool:
        self.steps.append("speak")
        return False

    def tidy(self, _: Any) -> bool:
        self.steps.append("tidy")
        return True


@pytest.mark.parametrize(("waiting", "steps"), [(0, {"speak"}), (2, {"tidy"}), (5, set())])
def test_beside_the_applying_it_speaks_when_nothing_waits_and_tidies_while_not_much_does(
    monkeypatch: pytest.MonkeyPatch, waiting: int, steps: set[str]
) -> None:
    monkeypatch.setattr(lines, "TIDY_S", 0.01)
    monkeypatch.setattr(lines, "AHEAD_RECORDS", 4)
    monkeypatch.setattr(lines, "aside", lambda _, step: step(None))

    async def scenario() -> set[str]:
        speaking = Speaking()
        line = Line(None, speaking)  # type: ignore[arg-type]
        if waiting:
            await line.put(chunk(0, 0, waiting))
        running = asyncio.create_task(line.run_aside())
        await (asyncio.sleep(0.2) if not steps else soon(lambda: len(speaking.steps) > 2))
        running.cancel()
        return set(speaking.steps)

    assert asyncio.run(scenario()) == steps


def test_a_batch_ends_where_its_records_or_its_bytes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(records: int, size: int) -> list[list[int]]:
        monkeypatch.setattr(lines, "BATCH_RECORDS", records)
        monkeypatch.setattr(lines, "BATCH_BYTES", size)
        line = Line(None, Nothing())  # type: ignore[arg-type]
        for since in (0, 2, 4, 6):
            await line.put(chunk(0, since, 2))
        found = []
        while some := line._take():
            found.append([c.since for c in some])
        assert (line._records, line._bytes) == (0, 0)
        return found

    each = chunk(0, 0, 2).size
    assert each > 0
    assert asyncio.run(taken(100, 100 * each)) == [[0, 2, 4, 6]]
    assert asyncio.run(taken(5, 100 * each)) == [[0, 2], [4, 6]]
    assert asyncio.run(taken(100, 3 * each)) == [[0, 2, 4], [6]]
    assert asyncio.run(taken(1, 1)) == [[0], [2], [4], [6]]


def test_what_cannot_be_read_holds_its_line_also_while_something_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def lot(*_: Any) -> Any:
        tried.append(True)
        raise Retryable("a batch is intact and not readable")

    async def held(suspects: bool) -> bool:
        monkeypatch.setattr(inflight, "suspects", lambda: suspects)
        monkeypatch.setattr(lines, "lot", lot)
        line = Line(None, Nothing())  # type: ignore[arg-type]
        await line.put(chunk(0, 0, 2))
        task = asyncio.create_task(line.run(None, None))  # type: ignore[arg-type]
        await soon(lambda: line.holding or task.done())
        done = task.done()
        task.cancel()
        return line.holding and not done

    assert asyncio.run(held(False))
    assert asyncio.run(held(True))
    assert len(tried) >= 3  # once more to prove it


def packed(compression: int, base: int, headers: Any = (("ce_id", b"x"),)) -> batches.Batch:
    """A batch of few bytes that becomes large when it is unpacked."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10_000_000)
    for n in range(40):
        builder.append(n, 10**12, b"key", bytes(10_000), list(headers))
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    return batches.Batch.of(bytes(raw))


async def read(given: list[Chunk]) -> list[tuple[dict[int, list[int]], dict[int, int], dict[int, int], int]]:
    """What a line applies of ``given``: offsets by partition, since, until, and how many bytes of values at once."""
    told: list[Any] = []

    def apply(_: Any, __: Any, lot: Any, since: Any, ___: Any, until: Any) -> Applied:
        offsets = {p: lot.offsets[lot.partitions == p].tolist() for p in dict.fromkeys(lot.partitions.tolist())}
        told.append((offsets, dict(since), dict(until), sum(len(one.value) for one in lot)))
        return Applied(until, len(lot), 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfit, "apply", apply)
        line = Line(None, Nothing())  # type: ignore[arg-type]
        for one in given:
            await line.put(one)
        task = asyncio.create_task(line.run(cast(Any, None), cast(Any, None)))
        await soon(lambda: line.idle or task.done())
        assert line.idle
        task.cancel()
    return told


@pytest.mark.parametrize("suspects", [False, True], ids=["by column", "under suspicion"])
@pytest.mark.parametrize("compression", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_of_what_is_compressed_so_much_is_held_at_once_as_of_one_batch_at_most(
    monkeypatch: pytest.MonkeyPatch, compression: int, suspects: bool
) -> None:
    """Eight batches of some hundred bytes would be sixty-four million together, and a fetch has room for thousands."""
    proven: list[int] = []
    for name in ("suspects", "careful", "suspected"):
        monkeypatch.setattr(inflight, name, lambda *_: suspects)
    monkeypatch.setattr(quarantine, "prove", lambda lot: proven.append(len(lot)))
    monkeypatch.setattr(batches, "MOST_UNPACKED", 1_300_000)  # three of 400,000 and their heads
    zero, one = ([packed(compression, base) for base in bases] for bases in ([0, 40, 80, 120, 160], [7, 47, 90]))
    given = [
        Chunk(TICKET.name, 0, 3, Fetched(zero, 3), 201),
        Chunk(TICKET.name, 2, 5, [], 6),
        Chunk(TICKET.name, 1, 7, Fetched(one, 7), 130),
    ]
    assert asyncio.run(read(given)) == [
        ({0: [*range(3, 120)]}, {0: 3}, {0: 120}, 1_170_000),
        ({0: [*range(120, 200)], 1: [*range(7, 47)]}, {0: 120, 2: 5, 1: 7}, {0: 201, 2: 6, 1: 47}, 1_200_000),
        ({1: [*range(47, 87), *range(90, 130)]}, {1: 47}, {1: 130}, 800_000),
    ]
    assert proven == ([117, 120, 80] if suspects else [])


@pytest.mark.parametrize("headers", [[], [("ce_id", b"x")]], ids=["one by one", "by column"])
def test_what_is_compressed_and_fits_is_unpacked_once_and_applied_at_once(
    monkeypatch: pytest.MonkeyPatch, headers: Any
) -> None:
    rightly, asked = batches._unpacked, []

    def unpacked(raw: bytes, how: int) -> bytes:
        asked.append(how)
        return rightly(raw, how)

    monkeypatch.setattr(batches, "_unpacked", unpacked)
    fetched = [Fetched([packed(4, 0, headers), packed(3, 40, headers)], 0) for _ in range(2)]
    ((offsets, *_),) = asyncio.run(read([Chunk(TICKET.name, p, 0, one, 80) for p, one in enumerate(fetched)]))
    assert (offsets, asked) == ({0: [*range(80)], 1: [*range(80)]}, [4, 3, 4, 3])


def test_a_batch_that_cannot_be_unpacked_holds_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def held() -> bool:
        line = Line(None, Nothing())  # type: ignore[arg-type]
        await line.put(Chunk(TICKET.name, 0, 0, Fetched([packed(4, 0), packed(4, 40)], 0), 80))
        task = asyncio.create_task(line.run(cast(Any, None), cast(Any, None)))
        await soon(lambda: line.holding or task.done())
        done = task.done()
        task.cancel()
        return line.holding and not done

    monkeypatch.setattr(batches, "MOST_UNPACKED", 300_000)
    assert asyncio.run(held())
