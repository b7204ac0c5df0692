"""A record that plain Python reads is the one that the clients' parsers read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streams.store import records

BYTES = st.none() | st.binary(max_size=200)
WRITTEN = st.lists(
    st.tuples(st.integers(0, 2**53), BYTES, BYTES, st.lists(st.tuples(st.text(max_size=9), BYTES), max_size=4)),
    min_size=1, max_size=5,
)  # fmt: skip


def batch(written: list[Any]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 10_000_000)
    for offset, (at, key, value, headers) in enumerate(written):
        builder.append(offset, at, key, value, headers)
    return bytes(builder.build())


@given(WRITTEN)
def test_the_records_of_a_batch_are_read_as_the_client_reads_them(written: list[Any]) -> None:
    raw, at = batch(written), DefaultRecordBatch.HEADER_STRUCT.size
    theirs = DefaultRecordBatch(raw)
    for r in theirs:
        one = records.parse(raw, at)
        at = one.end
        assert (one.offset, one.key, one.value, list(one.headers)) == (r.offset, r.key, r.value, r.headers)
        assert (theirs.first_timestamp + one.timestamp, one.size) == (r.timestamp, r.size_in_bytes)
    assert at == len(raw)


@given(WRITTEN, st.integers(0, 2**32), st.integers(0, 255))
def test_bytes_that_are_no_record_are_told_by_an_error(written: list[Any], place: int, byte: int) -> None:
    head = DefaultRecordBatch.HEADER_STRUCT.size
    raw = bytearray(batch(written[:1]))
    raw[head + place % (len(raw) - head)] = byte
    try:
        one = records.parse(raw, head)
    except (ValueError, IndexError):
        return
    assert one.end <= len(raw)


def test_a_record_that_ends_before_it_says_is_none() -> None:
    whole = batch([(1, b"key", b"value", [])])
    for cut in range(DefaultRecordBatch.HEADER_STRUCT.size, len(whole)):
        with pytest.raises(IndexError):
            records.parse(whole[:cut], DefaultRecordBatch.HEADER_STRUCT.size)
