"""Rows on the wire: strict, bounded, and never another exception than ``Rejected``."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import examples
from schemas.codec import MAX_BYTES, decode, encode, faults, frame
from schemas.errors import Rejected
from schemas.topics import CALENDAR, CASE, DEADLETTER, ITEM, RATING, TOPICS, Topic

Strategy = st.SearchStrategy[Any]
REASONS = ["too_large", "bad_framing", "unknown_schema", "malformed_avro", "not_canonical"]
topics = pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)


def rating(**fields: Any) -> dict[str, Any]:
    return examples.load(RATING)["named-bad-rating-with-text"] | fields


def outcome_of(value: bytes, topic: Topic) -> Any:
    """The reason why the value is refused, or the record in it."""
    try:
        return decode(value, topic)
    except Rejected as refused:
        return refused.reason


def reason_of(value: bytes, topic: Topic | None = None) -> str:
    with pytest.raises(Rejected) as refused:
        decode(value, topic)
    return refused.value.reason


@topics
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_contract_gives_back_what_it_took(
    topic: Topic, records: Callable[[Topic], Strategy], data: st.DataObject
) -> None:
    record = data.draw(records(topic))

    assert decode(encode(topic, record), topic) == record


@topics
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_spoiled_bytes_are_refused_or_are_themselves_canonical(
    topic: Topic, spoiled: Callable[[bytes], Strategy], data: st.DataObject
) -> None:
    example = data.draw(st.sampled_from(list(examples.load(topic).values())))
    value = data.draw(spoiled(encode(topic, example)))

    outcome = outcome_of(value, topic)

    assert outcome in REASONS or encode(topic, outcome) == value


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TOPICS), st.binary(max_size=400))
def test_bytes_of_no_meaning_raise_nothing_but_rejected(topic: Topic, body: bytes) -> None:
    value = frame(topic.schema_id) + body
    outcome = outcome_of(value, topic)

    assert outcome in REASONS or encode(topic, outcome) == value


def test_absent_fields_take_the_contracts_defaults() -> None:
    record = decode(encode(RATING, {k: v for k, v in rating().items() if k not in ("tags", "comment")}))

    assert (record["service_no"], record["operation"], record["tags"], record["comment"]) == (1, "I", [], "")


def test_bytes_default_to_empty_bytes() -> None:
    record = examples.load(DEADLETTER)["row-of-an-unknown-department"]

    assert decode(encode(DEADLETTER, record))["original_key"] == b""


def test_all_faults_of_a_record_are_told_at_once() -> None:
    bad = rating(service_no="1", occurred_at=1.5, anonymous=1, colour="red", comment="a\x00b")
    del bad["case_no"]

    told = {(f.field, f.reason) for f in faults(RATING, bad)}

    assert told == {
        ("service_no", "wrong_type"), ("occurred_at", "wrong_type"), ("anonymous", "wrong_type"),
        ("colour", "unknown_field"), ("comment", "bad_format"), ("case_no", "missing_field"),
    }  # fmt: skip
    with pytest.raises(Rejected) as refused:
        encode(RATING, bad)
    assert {(f.field, f.reason) for f in refused.value.faults} == told


@pytest.mark.parametrize("value", [True, 2**31, -(2**31) - 1, 1.0, None, "1"])
def test_only_32_bit_integers_are_ints(value: Any) -> None:
    assert [f.field for f in faults(RATING, rating(service_no=value))] == ["service_no"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "5", True])
def test_a_limit_must_be_a_finite_number(value: Any) -> None:
    item = next(iter(examples.load(ITEM).values())) | {"promise_limit": value}

    assert [f.field for f in faults(ITEM, item)] == ["promise_limit"]


def test_a_lone_surrogate_is_not_text() -> None:
    assert [f.reason for f in faults(RATING, rating(comment="\ud800"))] == ["bad_format"]


def test_faults_do_not_repeat_personal_data() -> None:
    with pytest.raises(Rejected) as refused:
        encode(RATING, rating(comment="测试\x00丙", rater_name=430903190001010015))

    assert "测试" not in str(refused.value)
    assert "430903190001010015" not in str(refused.value)


def test_a_record_over_256_kib_is_refused_both_ways() -> None:
    room = MAX_BYTES - len(encode(RATING, rating(comment="")))
    fits = encode(RATING, rating(comment="a" * (room - 2)))

    assert len(fits) == MAX_BYTES
    assert decode(fits)["comment"] == "a" * (room - 2)
    with pytest.raises(Rejected, match="too_large"):
        encode(RATING, rating(comment="a" * (room - 1)))
    assert reason_of(fits + b"\x00") == "too_large"


@pytest.mark.parametrize(
    "value", [b"", b"\x00", b"\x00\x00\x00\x00", b"{\x00\x00\x00\x03", b"\x01\x00\x00\x00\x03\x00"]
)
def test_a_value_without_confluent_frame_is_refused(value: bytes) -> None:
    assert reason_of(value) == "bad_framing"


def test_an_id_of_no_contract_or_of_another_topics_is_refused() -> None:
    value = encode(RATING, rating())

    assert reason_of(frame(999) + value[5:]) == "unknown_schema"
    assert reason_of(frame(1003) + value[5:]) == "unknown_schema"
    assert reason_of(value, CASE) == "unknown_schema"


def test_trailing_bytes_are_not_canonical() -> None:
    assert reason_of(encode(RATING, rating()) + b"\x00") == "not_canonical"


def test_an_overlong_varint_is_not_canonical() -> None:
    value = encode(RATING, rating())

    assert value[5] == 72  # the length 36 of event_id
    assert reason_of(value[:5] + b"\xc8\x00" + value[6:]) == "not_canonical"


def spliced(wanted: bytes, put: bytes, **fields: Any) -> bytes:
    """A rating whose last ``wanted`` bytes (window, default, anonymous, …) are replaced."""
    value = encode(RATING, rating(**fields))
    assert value.endswith(wanted)
    return value[: -len(wanted)] + put


def test_a_boolean_other_than_0_and_1_is_not_canonical() -> None:
    assert reason_of(spliced(b"\x01\x00", b"\x02\x00", is_default=True)) == "not_canonical"


@pytest.mark.parametrize("index", [b"\x01", b"\x04", b"\x03"])
def test_a_union_index_that_is_negative_or_beyond_is_refused(index: bytes) -> None:
    there, absent = (encode(RATING, rating(entered_at=at)) for at in (1, None))
    at = next(i for i, (a, b) in enumerate(zip(there, absent, strict=False)) if a != b)

    assert (there[at], absent[at]) == (2, 0)
    assert reason_of(there[:at] + index + there[at + 1 :]) in {"malformed_avro", "not_canonical"}
    assert reason_of(absent[:at] + index + absent[at + 1 :]) in {"malformed_avro", "not_canonical"}


def test_an_int_beyond_32_bits_is_malformed() -> None:
    value = encode(RATING, rating(service_no=2**31 - 1))
    highest, beyond = b"\xfe\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10"

    assert value.count(highest) == 1
    assert reason_of(value.replace(highest, beyond)) == "malformed_avro"


def test_the_character_null_is_refused_though_it_is_utf8() -> None:
    value = encode(RATING, rating(window_name="ab"))

    assert reason_of(value[:-2] + b"a\x00") == "malformed_avro"


def varint(number: int) -> bytes:
    number, out = (number << 1) ^ (number >> 63), bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    "bomb",
    [
        varint(2**62),
        varint(-(2**62)) + varint(2**40),
        varint(2**31) + b"\x00" * 200_000,
        varint(-1) + varint(2**62) + varint(2**62),
        varint(1) + varint(2**62),
    ],
    ids=["count", "negative count", "empty items", "lying block", "giant string"],
)
@pytest.mark.parametrize("topic", [RATING, CALENDAR], ids=lambda t: t.name)
def test_an_array_bomb_is_refused_at_once_and_in_little_memory(topic: Topic, bomb: bytes) -> None:
    name, marker = ("tags", ["@@marker@@"]) if topic is RATING else ("days", [])
    record = next(iter(examples.load(topic).values())) | {name: marker}
    value = encode(topic, record | ({"hours": []} if topic is CALENDAR else {}))
    head = value[: value.index(b"\x02\x14@@marker@@")] if topic is RATING else value[:-2]

    tracemalloc.start()
    started = time.thread_time()
    reason = reason_of(head + bomb)
    took, (_, peak) = time.thread_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert reason in {"malformed_avro", "not_canonical"}
    assert took < 2.0  # seconds of this thread: a busy machine is no fault
    assert peak < 40 * 2**20
