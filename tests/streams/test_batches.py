"""What is read by column is what aiokafka reads one by one; what cannot be is left to that."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import batches
from streams.store.lot import Columns, gathered, offset_at, size

Written = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]]]
NAMES = ["ce_id", "ce_source", "类型"]


def batch(records: Sequence[Written], compression: int = 0, base: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10_000_000)
    for offset, (at, key, value, headers) in enumerate(records):
        builder.append(offset, at, key, value, headers)
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    return bytes(made)


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
    columns = batches.read([raw], NAMES)
    assert columns is not None
    texts = [text or b"" for _, key, value, heads in records for text in (key, value, *(h for _, h in heads))]
    taken = size(columns)
    assert by_column(columns) == one_by_one(raw)
    assert taken == size(columns) == sum(map(len, texts)) + 16 * len(records)  # with offset and time
    assert batches.size(b"before" + raw + b"after", 6) == len(raw)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 255))
def test_damaged_bytes_are_read_the_same_or_not_by_column(place: int, byte: int) -> None:
    raw = bytearray(batch(usual()))
    raw[batches.HEAD.size + place % (len(raw) - batches.HEAD.size)] = byte
    columns = batches.read([bytes(raw)], NAMES)
    if columns is not None:
        assert by_column(columns) == one_by_one(bytes(raw))


def test_few_mixed_and_absent_records_are_left_to_the_other_parser() -> None:
    few, mixed, twice, no_key, no_value = usual()[1:], usual(), usual(), usual(), usual()
    mixed[7] = (*mixed[7][:3], mixed[7][3][:2])
    twice = [(at, key, value, [("ce_id", b"1"), ("ce_id", b"2")]) for at, key, value, _ in twice]
    no_key[3] = (no_key[3][0], None, *no_key[3][2:])
    no_value[5] = (*no_value[5][:2], None, no_value[5][3])
    assert batches.read([batch(usual())], NAMES) is not None
    assert [batches.read([batch(r)], NAMES) for r in (few, mixed, no_key, no_value)] == [None] * 4
    assert batches.read([batch(twice)], ["ce_id", "ce_id"]) is None
    assert batches.read([batch(usual())], ["ce_id", "other", "类型"]) is None


@pytest.mark.parametrize("compression", [1, 2, 3, 4])
def test_compressed_batches_are_read_by_column(compression: int) -> None:
    raws = [batch(usual(), compression, base=b) for b in (0, 500)]
    columns = batches.read(raws, NAMES)
    assert columns is not None
    assert by_column(columns) == [record for raw in raws for record in one_by_one(raw)]
    assert batches.read([raws[0][:-9] + b"otherwise"], NAMES) is None


def test_a_batch_is_intact_as_it_was_written_and_with_no_bit_changed() -> None:
    raw = batch(usual())
    assert batches.intact(raw)
    for place in range(batches.CRC_AT, len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert not batches.intact(bytes(damaged))


def test_a_batch_of_another_format_is_left_to_the_other_parser() -> None:
    raw = bytearray(batch(usual()))
    raw[batches.MAGIC_AT] = 1
    assert batches.intact(bytes(raw)) is None


def test_the_offset_of_a_record_is_told_the_same_of_columns_and_of_records() -> None:
    columns = batches.read([batch(usual(), base=7)], NAMES)
    assert columns is not None
    for at in (0, 3, -1):
        assert offset_at(columns, at) == offset_at(list(columns), at) == columns[at].offset


def test_several_batches_are_read_at_once_each_from_its_own_place() -> None:
    raws = [batch(usual(3), base=b) for b in range(10, 10 + 3 * batches.FEW, 3)]
    columns = batches.read(raws, NAMES)
    assert columns is not None
    assert by_column(columns) == [record for raw in raws for record in one_by_one(raw)]
    assert batches.read([*raws, raws[0][:-1]], NAMES) is None
    head, body = raws[1][: batches.HEAD.size], raws[1][batches.HEAD.size :]
    assert batches.read([raws[0] + body, head, *raws[2:]], NAMES) is None


def test_columns_of_several_batches_are_joined_cut_and_begin_where_they_are_wanted() -> None:
    first, second = (batches.read([batch(usual(), base=b)], NAMES) for b in (0, 100))
    assert first is not None
    assert second is not None
    both = gathered([first, second])
    assert isinstance(both, Columns)
    assert [both[0].offset, both[-1].offset, len(both)] == [0, 99 + batches.FEW, 2 * batches.FEW]
    assert [r.offset for r in both[30:34]] == [30, 31, 100, 101]
    assert [r.offset for r in second.since(130)] == [130, 131]
    assert gathered([first, list(second)]) == [*first, *second]
