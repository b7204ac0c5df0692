"""What is written by column must be byte for byte what is written by row."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec, columns_out, envelope
from schemas.errors import Rejected
from schemas.topics import ALERT, ROLLUP, UPLOAD, Topic

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200)
MS = st.integers(
    0, 7_258_118_399_999
)  # to the year 2199: later, envelope.headers loses a millisecond to floats
KINDS: dict[str, tuple[st.SearchStrategy[Any], pl.DataType | type[pl.DataType]]] = {
    "string": (TEXT, pl.String),
    "boolean": (st.booleans(), pl.Boolean),
    "int": (st.integers(-(2**31), 2**31 - 1), pl.Int64),
    "long": (st.integers(-(2**62), 2**62 - 1), pl.Int64),
    "timestamp-millis": (MS, pl.Int64),
    "date": (st.dates(dt.date(1970, 1, 1), dt.date(9999, 12, 31)), pl.Date),
    "array": (st.lists(TEXT, max_size=1) | st.lists(TEXT, max_size=130), pl.List(pl.String)),
}


def _kind(schema: Any) -> str:
    schema = next(s for s in schema if s != "null") if isinstance(schema, list) else schema
    return str(schema.get("logicalType", schema["type"]) if isinstance(schema, dict) else schema)


def _fields(topic: Topic) -> dict[str, Any]:
    """The contract's fields by name: whoever adds one has it written by column here, whatever its type."""
    return {f["name"]: f["type"] for f in codec.contract(topic)["fields"] if f["name"] != "event_id"}


def _records(topic: Topic) -> st.SearchStrategy[list[dict[str, Any]]]:
    drawn = {}
    for name, schema in _fields(topic).items():
        values = KINDS[_kind(schema)][0]
        drawn[name] = st.none() | values if isinstance(schema, list) else values
    return st.lists(st.fixed_dictionaries({**drawn, "region": st.just("430903")}), min_size=1, max_size=5)


def _frame(topic: Topic, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(records, schema={n: KINDS[_kind(schema)][1] for n, schema in _fields(topic).items()})


def _same(topic: Topic, records: list[dict[str, Any]]) -> None:
    frame = _frame(topic, records)
    written = columns_out.write(topic, frame)
    heads = columns_out.headers_json(topic, frame, written.event_id)
    for i, record in enumerate(records):
        whole = {**record, "event_id": str(envelope.event_id(topic, record))}
        value = codec.encode(topic, whole)
        assert written.event_id[i] == whole["event_id"]
        assert bytes.fromhex(written.value[i]) == value
        assert written.digest[i] == envelope.digest(value).hex
        content = codec.encode(topic, {**whole, "received_at": 0})
        assert written.content_digest[i] == envelope.digest(content).hex
        expected = [[n, v.decode()] for n, v in envelope.headers(topic, whole)]
        assert json.loads(heads[i]) == expected


@pytest.mark.parametrize("topic", [ALERT, ROLLUP, UPLOAD], ids=lambda topic: topic.name)
@given(data=st.data())
def test_what_is_written_by_column_has_the_bytes_it_has_by_row(topic: Topic, data: st.DataObject) -> None:
    _same(topic, data.draw(_records(topic)))


@pytest.mark.parametrize("topic", [ALERT, ROLLUP, UPLOAD], ids=lambda topic: topic.name)
@given(data=st.data())
def test_what_is_the_same_in_all_rows_has_the_same_bytes(topic: Topic, data: st.DataObject) -> None:
    records = data.draw(_records(topic))
    alike = data.draw(st.sets(st.sampled_from(sorted(_fields(topic)))))
    _same(topic, [{**record, **{name: records[0][name] for name in alike}} for record in records])


@settings(max_examples=20)
@given(data=st.data())
def test_lists_of_one_have_the_same_bytes(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.lists(TEXT, min_size=1, max_size=1), min_size=2, max_size=5))
    record = data.draw(_records(ALERT))[0]
    _same(ALERT, [{**record, "evidence": one, "alert_id": f"{i}"} for i, one in enumerate(texts)])


@given(data=st.data())
def test_the_same_record_again_is_written_again(data: st.DataObject) -> None:
    _same(ALERT, 3 * data.draw(_records(ALERT))[:1])


@given(data=st.data())
def test_what_must_not_be_absent_is_told(data: st.DataObject) -> None:
    record = data.draw(_records(ALERT))[0]
    for summaries in ([None], [None, None], ["a", None]):
        with pytest.raises(ValueError, match="absent value"):
            columns_out.write(ALERT, _frame(ALERT, [{**record, "summary": s} for s in summaries]))


@pytest.mark.parametrize("topic", [ALERT, ROLLUP, UPLOAD], ids=lambda topic: topic.name)
@settings(max_examples=30)
@given(data=st.data())
def test_absent_fields_take_their_defaults(topic: Topic, data: st.DataObject) -> None:
    records = data.draw(_records(topic))
    absent = {f["name"] for f in codec.contract(topic)["fields"] if "default" in f and f["name"] != topic.key}
    kept = [{k: v for k, v in record.items() if k not in absent} for record in records]
    written = columns_out.write(topic, _frame(topic, kept).drop(absent))
    for i, record in enumerate(kept):
        whole = {**record, "event_id": str(envelope.event_id(topic, record))}
        assert bytes.fromhex(written.value[i]) == codec.encode(topic, whole)


def test_a_value_over_the_limit_is_refused_as_it_is_by_row() -> None:
    record = {
        "event_type": "rating.uploaded", "region": "430903", "department": "HS-SLJ", "occurred_at": 0, "received_at": 0,
        "rating_id": "r", "source_event_id": "e", "project_no": "C1", "assess_time": 0,
        "writing_evaluation": "好" * (codec.MAX_BYTES // 3),
    }  # fmt: skip
    with pytest.raises(Rejected) as by_row:
        codec.encode(UPLOAD, {**record, "event_id": str(envelope.event_id(UPLOAD, record))})
    with pytest.raises(Rejected) as by_column:
        columns_out.write(UPLOAD, pl.DataFrame([record, {**record, "rating_id": "s", "writing_evaluation": ""}]))
    assert by_column.value.faults == by_row.value.faults
    assert by_row.value.faults[0].reason == "too_large"
