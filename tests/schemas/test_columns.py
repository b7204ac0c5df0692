"""Columns are as strict as rows: the same values, or ``ColumnsRefused``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import examples
from schemas.codec import MAX_BYTES, decode, encode, frame
from schemas.columns import ColumnsRefused, decode_columns, readable
from schemas.errors import Rejected
from schemas.topics import (
    BEHAVIOUR,
    CALENDAR,
    CASE,
    ENTRY,
    ITEM,
    LICENCE,
    RATING,
    RESOURCE,
    TICKET,
    TOPICS,
    Topic,
)

Strategy = st.SearchStrategy[Any]
BY_COLUMN = [t for t in TOPICS if readable(t)]
topics = pytest.mark.parametrize("topic", BY_COLUMN, ids=lambda t: t.name)


def rating(number: int = 1, **fields: Any) -> dict[str, Any]:
    record = examples.load(RATING)["named-bad-rating-with-text"]
    return record | {"event_id": f"00000000-0000-5000-8000-{number:012d}"} | fields


def ids_of(records: list[dict[str, Any]]) -> list[bytes]:
    return [r["event_id"].encode() for r in records]


def assert_refused_or_as_rows(topic: Topic, values: list[bytes], ids: list[bytes]) -> bool:
    """Whether columns took the values; then rows must take them too, and see the same."""
    try:
        read = decode_columns(topic, values, ids)
    except ColumnsRefused:
        return False
    assert read.rows(named=True) == [decode(v, topic) for v in values]
    return True


def test_only_contracts_with_arrays_of_records_need_rows() -> None:
    assert set(TOPICS) - set(BY_COLUMN) == {ITEM, RESOURCE, CALENDAR, ENTRY}


@topics
def test_columns_hold_what_rows_hold_for_every_example(topic: Topic) -> None:
    records = list(examples.load(topic).values())

    assert assert_refused_or_as_rows(topic, [encode(topic, r) for r in records], ids_of(records))


@topics
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_columns_hold_what_rows_hold_for_any_records(
    topic: Topic, records: Callable[[Topic], Strategy], data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(records(topic), min_size=1, max_size=5))

    assert assert_refused_or_as_rows(topic, [encode(topic, r) for r in drawn], ids_of(drawn))


@topics
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_one_spoiled_record_is_refused_or_read_as_rows_read_it(
    topic: Topic, spoiled: Callable[[bytes], Strategy], data: st.DataObject
) -> None:
    records = list(examples.load(topic).values()) * 2
    values = [encode(topic, r) for r in records]
    at = data.draw(st.integers(0, len(values) - 1))
    values[at] = data.draw(spoiled(values[at]))

    assert_refused_or_as_rows(topic, values, ids_of(records))


def test_times_are_int64_and_days_are_dates() -> None:
    licence = examples.load(LICENCE)["business-licence-issued-with-its-case"]

    read = decode_columns(LICENCE, [encode(LICENCE, licence)], ids_of([licence]))

    assert read.schema["occurred_at"] == pl.Int64()
    assert read.schema["issued_on"] == pl.Date()
    assert read.columns == list(decode(encode(LICENCE, licence)))


def test_no_values_are_an_empty_frame_of_the_same_columns() -> None:
    some = decode_columns(RATING, [encode(RATING, rating())], ids_of([rating()]))

    assert decode_columns(RATING, [], []).schema == some.schema


def test_an_id_that_differs_from_its_header_is_refused() -> None:
    values = [encode(RATING, rating(n)) for n in (1, 2)]

    with pytest.raises(ColumnsRefused, match="id differs"):
        decode_columns(RATING, values, ids_of([rating(2), rating(1)]))


def test_a_missing_id_is_refused() -> None:
    with pytest.raises(ColumnsRefused, match="id"):
        decode_columns(RATING, [encode(RATING, rating())], [b""])


def test_a_value_of_another_contract_is_refused_even_if_it_would_read() -> None:
    value = encode(RATING, rating())

    with pytest.raises(ColumnsRefused, match="schema id"):
        decode_columns(RATING, [value, frame(1003) + value[5:]], ids_of([rating(), rating()]))


def test_a_contract_with_arrays_of_records_is_left_to_rows() -> None:
    calendar = next(iter(examples.load(CALENDAR).values()))

    with pytest.raises(ColumnsRefused, match="arrays of records"):
        decode_columns(CALENDAR, [encode(CALENDAR, calendar)], ids_of([calendar]))


def test_a_value_over_256_kib_is_refused() -> None:
    room = MAX_BYTES - len(encode(RATING, rating(comment="")))
    fits = rating(comment="a" * (room - 2))
    value = encode(RATING, fits)

    assert assert_refused_or_as_rows(RATING, [value], ids_of([fits]))
    with pytest.raises(ColumnsRefused, match="too large"):
        decode_columns(RATING, [value + b"\x00"], ids_of([fits]))


def refuses_both(value: bytes, *, number: int = 2) -> None:
    """Rows reject the value; columns refuse it at the beginning, in the middle and at the end of a chunk."""
    with pytest.raises(Rejected):
        decode(value, RATING)
    for place in range(3):
        values, numbers = [encode(RATING, rating(n)) for n in (7, 8)], [7, 8]
        values.insert(place, value)
        numbers.insert(place, number)
        with pytest.raises(ColumnsRefused):
            decode_columns(RATING, values, ids_of([rating(n) for n in numbers]))


def test_trailing_bytes_of_one_record_are_found() -> None:
    refuses_both(encode(RATING, rating(2)) + b"\x00")


def test_a_whole_second_record_in_one_value_is_found_though_the_count_is_right() -> None:
    first, second = encode(RATING, rating(1)), encode(RATING, rating(2))

    with pytest.raises(ColumnsRefused):
        decode_columns(RATING, [first + second[5:], second], ids_of([rating(1), rating(2)]))


def test_a_byte_moved_from_one_record_to_its_neighbour_is_found() -> None:
    first, second = encode(RATING, rating(1, window_name="aa")), encode(RATING, rating(2))

    with pytest.raises(ColumnsRefused):
        decode_columns(RATING, [first[:-1], first[-1:] + second], ids_of([rating(1), rating(2)]))


def test_an_overlong_varint_is_found() -> None:
    value = encode(RATING, rating(2))

    refuses_both(value[:5] + b"\xc8\x00" + value[6:])


def test_a_boolean_of_the_right_length_but_wrong_byte_is_found() -> None:
    value = encode(RATING, rating(2, is_default=True, window_name=""))

    assert value[-2:] == b"\x01\x00"
    for byte in (2, 3, 0xFF):
        refuses_both(value[:-2] + bytes([byte, 0]))


@pytest.mark.parametrize("entered_at", [None, 1_600_000_000_000])
@pytest.mark.parametrize("index", [1, 3, 4, 5, 127])
def test_a_union_index_of_the_right_length_but_wrong_value_is_found(
    entered_at: int | None, index: int
) -> None:
    value = encode(RATING, rating(2, entered_at=entered_at))
    at = value.index(b"2020-09-21 11:00:00") + 19

    assert value[at] == (0 if entered_at is None else 2)
    refuses_both(value[:at] + bytes([index]) + value[at + 1 :])


@pytest.mark.parametrize(
    "beyond", [b"\x80\x80\x80\x80\x10", b"\xff\xff\xff\xff\x1f", b"\xfe\xff\xff\xff\x7f"]
)
def test_an_int_beyond_32_bits_of_the_right_length_is_found(beyond: bytes) -> None:
    highest = b"\xfe\xff\xff\xff\x0f"
    value = encode(RATING, rating(2, service_no=2**31 - 1))

    assert value.count(highest) == 1
    refuses_both(value.replace(highest, beyond))


def test_a_long_beyond_64_bits_of_the_right_length_is_found() -> None:
    highest = b"\xfe" + b"\xff" * 8 + b"\x01"
    value = encode(RATING, rating(2, occurred_at=2**63 - 1))

    assert value.count(highest) == 1
    refuses_both(value.replace(highest, highest[:-1] + b"\x03"))


def test_an_array_in_two_blocks_of_the_same_length_as_one_is_found() -> None:
    value = encode(RATING, rating(2, tags=["1"] * 100))
    items = b"\x021"

    assert value.count(b"\xc8\x01" + items * 100 + b"\x00") == 1
    refuses_both(value.replace(b"\xc8\x01" + items * 100, b"\x64" + items * 50 + b"\x64" + items * 50))


def test_an_array_with_a_negative_count_of_the_same_length_is_found() -> None:
    value = encode(RATING, rating(2, tags=[""] * 64))

    assert value.count(b"\x80\x01" + b"\x00" * 64) == 1
    refuses_both(value.replace(b"\x80\x01" + b"\x00" * 64, b"\x7f\x01" + b"\x00" * 64))


@pytest.mark.parametrize("count", [b"\xff" * 9 + b"\x01", b"\xfe" * 9 + b"\x01", b"\x80" * 8 + b"\x40"])
def test_an_array_bomb_is_refused(count: bytes) -> None:
    value = encode(RATING, rating(2, tags=["@@marker@@"]))
    at = value.index(b"\x02\x14@@marker@@")

    refuses_both(value[:at] + count)


def test_the_character_null_is_found() -> None:
    value = encode(RATING, rating(2, window_name="ab"))

    refuses_both(value[:-2] + b"a\x00")
    tagged = encode(RATING, rating(2, tags=["@@@"]))
    refuses_both(tagged.replace(b"@@@", b"@\x00@"))


def test_bytes_that_are_not_utf8_are_found() -> None:
    refuses_both(encode(RATING, rating(2, window_name="ab"))[:-2] + b"\xff\xfe")


def test_a_number_that_is_not_finite_is_found() -> None:
    case = examples.load(CASE)["ten-days-more-with-the-heads-approval"]
    value = encode(CASE, case)
    ten, infinite = b"\x00\x00\x00\x00\x00\x00\x24\x40", b"\x00\x00\x00\x00\x00\x00\xf0\x7f"

    assert value.count(ten) == 1
    with pytest.raises(Rejected):
        decode(value.replace(ten, infinite), CASE)
    with pytest.raises(ColumnsRefused):
        decode_columns(CASE, [value.replace(ten, infinite)], ids_of([case]))


def test_a_day_outside_the_calendar_is_found() -> None:
    licence = examples.load(LICENCE)["business-licence-issued-with-its-case"]
    value = encode(LICENCE, licence | {"valid_from_on": None, "issued_on": licence["issued_on"]})
    day = b"\x02\xc8\xa1\x02"  # 2020-09-27, day 18532, after its union index

    assert value.count(day) == 1
    for beyond in (b"\x02\xfe\xff\xff\x7f", b"\x02\xff\xff\xff\x7f"):
        with pytest.raises(Rejected):
            decode(value.replace(day, beyond), LICENCE)
        with pytest.raises(ColumnsRefused):
            decode_columns(LICENCE, [value.replace(day, beyond)], ids_of([licence]))


def test_errors_do_not_repeat_the_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    value = encode(RATING, rating(2, comment="测试丙的电话"))

    with pytest.raises(ColumnsRefused) as refused:
        decode_columns(RATING, [value[:-40]], ids_of([rating(2)]))

    assert "测试" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "测试" not in capfd.readouterr().err


@pytest.mark.parametrize("topic", [RATING, TICKET, BEHAVIOUR, CASE, LICENCE], ids=lambda t: t.name)
def test_a_large_mixed_chunk_is_read_as_rows_read_it(topic: Topic) -> None:
    records = list(examples.load(topic).values()) * 200

    assert assert_refused_or_as_rows(topic, [encode(topic, r) for r in records], ids_of(records))


def test_a_panic_of_the_reader_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_: object) -> pl.DataFrame:
        raise pl.exceptions.PanicException("index out of range")

    monkeypatch.setattr(pl, "read_avro", panic)

    with pytest.raises(ColumnsRefused, match="PanicException"):
        decode_columns(RATING, [encode(RATING, rating())], ids_of([rating()]))
