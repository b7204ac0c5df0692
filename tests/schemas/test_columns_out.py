"""What is written by column must be byte for byte what is written by row."""

from __future__ import annotations

import datetime as dt
import json

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, columns_out, envelope
from schemas.topics import ALERT, ROLLUP, UPLOAD

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200)
MS = st.integers(
    0, 7_258_118_399_999
)  # to the year 2199: later, envelope.headers loses a millisecond to floats
ENVELOPE = {
    "region": st.just("430903"),
    "department": TEXT,
    "occurred_at": MS,
    "received_at": MS,
    "occurred_text": TEXT,
    "entered_at": st.none() | MS,
}
UPLOADS = st.fixed_dictionaries(
    {
        **ENVELOPE,
        "event_type": st.just("rating.uploaded"),
        "rating_id": TEXT,
        "source_event_id": TEXT,
        "project_no": TEXT,
        "service_number": st.integers(-(2**31), 2**31 - 1),
        "writing_evaluation": TEXT,
        "assess_time": MS,
        "is_default": st.booleans(),
    }
)
ALERTS = st.fixed_dictionaries(
    {
        **ENVELOPE,
        "event_type": st.just("alert.issued"),
        "alert_id": TEXT,
        "alert_seq": st.integers(1, 99),
        "kind_code": TEXT,
        "colour_code": TEXT,
        "rule_id": TEXT,
        "rule_version": TEXT,
        "case_no": TEXT,
        "summary": TEXT,
        "issued_at": MS,
        "evidence": st.lists(TEXT, max_size=130),
        "due_at": st.none() | MS,
    }
)
ROLLUPS = st.fixed_dictionaries(
    {
        **ENVELOPE,
        "event_type": st.just("rollup.revised"),
        "scope": TEXT,
        "scope_kind_code": TEXT,
        "rated_on": st.dates(dt.date(1970, 1, 1), dt.date(9999, 12, 31)),
        "revision": st.integers(-(2**62), 2**62 - 1),
    }
)


def _frame(records: list[dict[str, object]]) -> pl.DataFrame:
    kinds = {"evidence": pl.List(pl.String), "entered_at": pl.Int64, "due_at": pl.Int64}
    return pl.DataFrame(records, schema_overrides={k: v for k, v in kinds.items() if k in records[0]})


def _same(topic: object, records: list[dict[str, object]]) -> None:
    written = columns_out.write(topic, _frame(records))  # type: ignore[arg-type]
    heads = columns_out.headers_json(topic, _frame(records), written.event_id)  # type: ignore[arg-type]
    for i, record in enumerate(records):
        whole = {**record, "event_id": str(envelope.event_id(topic, record))}  # type: ignore[arg-type]
        value = codec.encode(topic, whole)  # type: ignore[arg-type]
        assert written.event_id[i] == whole["event_id"]
        assert bytes.fromhex(written.value[i]) == value
        assert written.digest[i] == envelope.digest(value).hex
        content = codec.encode(topic, {**whole, "received_at": 0})  # type: ignore[arg-type]
        assert written.content_digest[i] == envelope.digest(content).hex
        expected = [[n, v.decode()] for n, v in envelope.headers(topic, whole)]  # type: ignore[arg-type]
        assert json.loads(heads[i]) == expected


@given(st.lists(UPLOADS, min_size=1, max_size=5))
def test_uploads_by_column_have_the_bytes_they_have_by_row(records: list[dict[str, object]]) -> None:
    _same(UPLOAD, records)


@given(st.lists(ALERTS, min_size=1, max_size=5))
def test_alerts_by_column_have_the_bytes_they_have_by_row(records: list[dict[str, object]]) -> None:
    _same(ALERT, records)


@given(st.lists(ROLLUPS, min_size=1, max_size=5))
def test_rollups_by_column_have_the_bytes_they_have_by_row(records: list[dict[str, object]]) -> None:
    _same(ROLLUP, records)
