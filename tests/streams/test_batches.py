"""What is read by column is what aiokafka reads one by one; what cannot be is left to that."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Retryable
from schemas.topics import TICKET
from streams import batches
from streams.batches import Batch, Fetched
from streams.store import inflight
from streams.store.lot import Columns, Lot, gathered

Written = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]]]
NAMES = ["ce_id", "ce_source", "类型"]


def batch(records: Sequence[Written], compression: int = 0, base: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10_000_000)
    for offset, (at, key, value, headers) in enumerate(records):
        builder.append(offset, at, key, value, headers)
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    return bytes(made)


def read(raws: Sequence[bytes]) -> Columns | None:
    return batches.read([Batch.of(raw) for raw in raws])


def one_by_one(raw: bytes) -> list[Any]:
    return [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in MemoryRecords(raw).next_batch()]


def by_column(columns: Columns) -> list[Any]:
    return [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in columns]


def usual(count: int = batches.FEW) -> list[Written]:
    return [(10**12 + i, b"key", b"value %d" % i, [(n, b"x" * i) for n in NAMES]) for i in range(count)]


RECORDS = st.lists(
    st.tuples(
        st.integers(10**12 - 10**6, 10**12 + 10**6),
        st.binary(max_size=90),
        st.binary(max_size=300),
        st.lists(st.binary(max_size=70), min_size=3, max_size=3).map(lambda v: list(zip(NAMES, v, strict=True))),
    ),
    min_size=batches.FEW,
    max_size=2 * batches.FEW,
)


@settings(max_examples=150, deadline=None)
@given(RECORDS, st.integers(0, 2**40))
def test_records_read_by_column_are_those_read_one_by_one(records: list[Written], base: int) -> None:
    raw = batch(records, base=base)
    columns = read([raw])
    assert columns is not None
    assert by_column(columns) == one_by_one(raw)
    assert batches.size(b"before" + raw + b"after", 6) == len(raw)
    assert [batches.whole(b"before" + raw[:end], 6) for end in (11, len(raw) - 1, len(raw))] == [False, False, True]


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 255))
def test_damaged_bytes_are_read_the_same_or_not_by_column(place: int, byte: int) -> None:
    raw = bytearray(batch(usual()))
    raw[batches.HEAD.size + place % (len(raw) - batches.HEAD.size)] = byte
    columns = read([bytes(raw)])
    if columns is not None:
        assert by_column(columns) == one_by_one(bytes(raw))


def test_few_mixed_and_absent_records_are_left_to_the_other_parser() -> None:
    few, mixed, twice, no_key, no_value = usual()[1:], usual(), usual(), usual(), usual()
    mixed[7] = (*mixed[7][:3], mixed[7][3][:2])
    twice = [(at, key, value, [("ce_id", b"1"), ("ce_id", b"2")]) for at, key, value, _ in twice]
    no_key[3] = (no_key[3][0], None, *no_key[3][2:])
    no_value[5] = (*no_value[5][:2], None, no_value[5][3])
    assert read([batch(usual())]) is not None
    assert [read([batch(r)]) for r in (few, mixed, no_key, no_value)] == [None] * 4
    assert read([batch(twice)]) is None
    assert read([batch([(at, key, value, []) for at, key, value, _ in usual()])]) is None
    appended = bytearray(batch(usual()))
    struct.pack_into(">h", appended, 21, batches.APPENDED)
    assert read([bytes(appended)]) is None


@pytest.mark.parametrize("compression", [1, 2, 3, 4])
def test_compressed_batches_are_read_by_column(compression: int) -> None:
    raws = [batch(usual(), compression, base=b) for b in (0, 500)]
    columns = read(raws)
    assert columns is not None
    assert by_column(columns) == [record for raw in raws for record in one_by_one(raw)]
    assert read([raws[0][:-9] + b"otherwise"]) is None


def test_a_batch_is_intact_as_it_was_written_and_with_no_bit_changed() -> None:
    raw = batch(usual())
    assert batches.intact(raw)
    for place in range(batches.CRC_AT, len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert not batches.intact(bytes(damaged))


def test_a_batch_of_another_format_or_without_its_head_is_damaged() -> None:
    raw = bytearray(batch(usual()))
    assert not batches.intact(bytes(raw[: batches.HEAD.size - 1]))
    raw[batches.MAGIC_AT] = 1
    assert not batches.intact(bytes(raw))


def test_several_batches_are_read_at_once_each_from_its_own_place() -> None:
    raws = [batch(usual(3), base=b) for b in range(10, 10 + 3 * batches.FEW, 3)]
    columns = read(raws)
    assert columns is not None
    assert by_column(columns) == [record for raw in raws for record in one_by_one(raw)]
    assert read([*raws, raws[0][:-1]]) is None
    head, body = raws[1][: batches.HEAD.size], raws[1][batches.HEAD.size :]
    assert read([raws[0] + body, head, *raws[2:]]) is None


def test_columns_of_several_batches_are_cut_and_records_of_several_parts_joined() -> None:
    both = read([batch(usual(), base=b) for b in (0, 100)])
    assert both is not None
    assert [both[0].offset, both[-1].offset, len(both)] == [0, 99 + batches.FEW, 2 * batches.FEW]
    assert [r.offset for r in both[30:34]] == [30, 31, 100, 101]
    assert gathered([both]) is both
    assert gathered([both, list(both)]) == [*both, *both]


def fetched(raws: Sequence[bytes], since: int = 0) -> Fetched:
    return Fetched([Batch.of(raw) for raw in raws], since)


def places(found: Any) -> list[tuple[int, int, bytes, Any]]:
    return [(c.partition, c.offset, c.value, c.headers) for c in found]


def test_what_many_fetches_brought_of_many_partitions_is_read_at_once() -> None:
    runs = [
        (3, fetched([batch(usual(5), base=0), batch(usual(2), base=5)], since=4)),
        (1, fetched([], since=9)),
        (1, fetched([batch(usual(40), base=70)], since=70)),
        (3, fetched([batch(usual(3), base=7)], since=7)),
    ]
    found = batches.lot(TICKET, runs)
    assert isinstance(found.raws, Columns)
    each = [(partition, run.one_by_one()) for partition, run in runs]
    assert places(found) == places(Lot.joined(TICKET, each))
    assert [(p, o) for p, o, *_ in places(found)] == [
        *((3, o) for o in (4, 5, 6)), *((1, o) for o in range(70, 110)), *((3, o) for o in (7, 8, 9))
    ]  # fmt: skip
    assert [len(run) for _, run in runs] == [7, 0, 40, 3]  # at most: two of the first are below its position
    assert [run.range for _, run in runs if len(run)] == [(0, 6), (70, 109), (7, 9)]
    assert runs[0][1].size == sum(len(batch(usual(n), base=0)) for n in (5, 2))


def test_a_log_that_was_compacted_is_read_with_its_gaps() -> None:
    raw = bytearray(batch(usual(40), base=100))
    struct.pack_into(">i", raw, 23, 90)  # the last offset of the batch, of which nothing is left
    found = batches.lot(TICKET, [(0, fetched([bytes(raw), batch(usual(1), base=191)], 100))])
    assert [c.offset for c in found] == [*range(100, 140), 191]
    assert Batch.of(bytes(raw)).next_offset == 191


@pytest.mark.parametrize("other", [usual(1)[0][3][:2], [("其他", b"x")], []])
def test_where_one_record_has_other_headers_all_are_read_one_by_one(other: list[tuple[str, bytes]]) -> None:
    runs = [(0, fetched([batch(usual())])), (1, fetched([batch([(10**12, b"k", b"v", other)], base=8)]))]
    found = batches.lot(TICKET, runs)
    assert not isinstance(found.raws, Columns)
    assert places(found) == places(Lot.joined(TICKET, [(p, run.one_by_one()) for p, run in runs]))
    assert places(found)[-1] == (1, 8, b"v", tuple(other))


def test_records_that_came_as_objects_are_joined_with_those_that_came_in_batches() -> None:
    objects = fetched([batch(usual(2), base=5)]).one_by_one()
    found = batches.lot(TICKET, [(0, fetched([batch(usual())])), (1, objects), (2, [])])
    assert [(p, o) for p, o, *_ in places(found)] == [*((0, o) for o in range(batches.FEW)), (1, 5), (1, 6)]
    assert len(batches.lot(TICKET, [])) == 0


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, batches.FEW])
def test_a_batch_that_is_intact_and_holds_no_records_is_held_with_a_mend(compression: int, count: int) -> None:
    raw = bytearray(batch(usual(count), min(compression, 4), base=50))
    struct.pack_into(">h", raw, 21, compression)
    broken = bytes(raw[: batches.HEAD.size]) + b"\xff" * (len(raw) - batches.HEAD.size)
    where = rf"hotline\.ticket\.v1/7 .* 50 to {49 + count}: .* docs/operate\.md, damaged log"
    with pytest.raises(Retryable, match=where):
        batches.lot(TICKET, [(0, fetched([batch(usual())])), (7, fetched([broken]))])


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("compression", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_unpacks_to_more_than_any_is_held_and_not_unpacked(
    monkeypatch: pytest.MonkeyPatch, compression: int, many: bool
) -> None:
    """Of two thousand bytes a decoder makes sixty million: whoever read them would die of it, and again."""
    records = [*(usual() if many else []), (10**12, b"key", b"\0" * 9_000_000, [(n, b"") for n in NAMES])]
    raw = batch(records, compression)
    assert [len(one.value) for one in batches.lot(TICKET, [(0, fetched([raw]))])][-1] == 9_000_000
    monkeypatch.setattr(batches, "MOST_UNPACKED", 8_000_000)
    with pytest.raises(Retryable, match=r"docs/operate\.md, damaged log"):
        batches.lot(TICKET, [(0, fetched([raw]))])


def test_snappy_in_one_piece_is_read_as_in_blocks() -> None:
    whole = codec.cramjam.snappy.compress_raw(b"x" * 100_000)
    blocks = codec.snappy_encode(b"x" * 100_000)
    assert batches._unsnapped(bytes(whole)) == batches._unsnapped(blocks) == b"x" * 100_000


def falsely_numbered(numbers: Sequence[int], last: int) -> bytes:
    """A batch at offset 100 whose records bear ``numbers``, as a foreign producer may write it; its sum is right."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000_000)
    for n, number in enumerate(numbers):
        builder.append(number, 10**12, b"k", b"%d" % n, [("ce_id", b"x")])
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, 100)
    struct.pack_into(">i", raw, 23, last)
    batches.CRC.pack_into(raw, batches.CRC_AT, crc32c(memoryview(raw)[batches.CRC_FROM :]))
    assert batches.intact(bytes(raw))
    return bytes(raw)


@pytest.mark.parametrize("many", [1, batches.FEW], ids=["few", "many"])
@pytest.mark.parametrize("numbers", [(0, 1, 2_000_000_000), (0, -50, 2), (0, 0, 0), (2, 1, 0)])
def test_records_that_bear_false_offsets_stand_where_the_broker_put_them(numbers: Sequence[int], many: int) -> None:
    """By its own number one would move the cursor past all that follows, or vanish behind its neighbour."""
    wrong = [*numbers, *range(3, 3 * many)]
    found = batches.lot(TICKET, [(0, fetched([falsely_numbered(wrong, len(wrong) - 1)]))])
    assert found.offsets.tolist() == [100 + n for n in range(len(wrong))]
    assert [one.value for one in found] == [b"%d" % n for n in range(len(wrong))]


def test_of_a_compacted_batch_with_false_offsets_nobody_knows_which_they_were() -> None:
    with pytest.raises(Retryable, match=r"docs/operate\.md, damaged log"):
        batches.lot(TICKET, [(0, fetched([falsely_numbered([0, 9], 5)]))])


def test_what_is_under_suspicion_is_not_read_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(inflight, "careful", lambda: True)
    monkeypatch.setattr(inflight, "suspected", lambda *words: asked.append(words) or True)  # type: ignore[func-returns-value]
    runs = [(0, fetched([batch(usual(), base=50)])), (2, fetched([batch(usual())])), (0, fetched([batch(usual())]))]
    assert not isinstance(batches.lot(TICKET, runs).raws, Columns)
    assert asked == [(TICKET.name, {0: (0, 81), 2: (0, 31)})]


def test_while_records_are_read_by_column_a_mark_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextmanager
    def decoding(*words: Any) -> Iterator[None]:
        told.append(words)
        yield
        told.append("read")

    monkeypatch.setattr(inflight, "decoding", decoding)
    batches.lot(TICKET, [(0, fetched([batch(usual(), base=50)]))])
    assert told == [(TICKET.name, {0: (50, 81)}), "read"]
