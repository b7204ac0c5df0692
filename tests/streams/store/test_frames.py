"""Reading by column accepts exactly what reading by row accepts, whatever the headers look like."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govbus.chaos import corpus
from schemas import codec, columns, envelope
from schemas.clock import iso
from schemas.topics import CASE, INBOUND, RATING, Topic
from streams.store import frames, steps
from streams.store.lot import Lot
from streams.store.projection import Carried


def rating(case_no: str) -> dict[str, Any]:
    record = {
        "event_type": "rating.given", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": 1_600_000_000_000,
        "received_at": 1_600_000_001_000, "case_no": case_no, "item_code": "11430903MBDEM0138T4000715002000",
        "satisfaction_set": "platform.satisfaction", "satisfaction_code": "5", "channel_set": "platform.channel",
        "channel_code": "1", "service_no": 1, "assess_no": 1, "revision": 0,
    }  # fmt: skip
    return {**record, "event_id": str(envelope.event_id(RATING, record))}


def carry(records: Sequence[dict[str, Any]]) -> list[Carried]:
    return [
        Carried(RATING, 3, 10 + i, r["case_no"].encode(), codec.encode(RATING, r), tuple(envelope.headers(RATING, r)))
        for i, r in enumerate(records)
    ]


def told(carried: Sequence[Carried]) -> tuple[list[str], list[tuple[int, str]]]:
    """Cases that were accepted; offset and reason of what was refused."""
    read = frames.read(RATING, carried)
    return read.frame["case_no"].to_list(), [(r.carried.offset, r.fault.reason) for r in read.refused]


def test_ids_that_agree_only_when_joined_are_refused() -> None:
    first, second = rating("C1"), rating("C2")
    shifted = first["event_id"][-1] + second["event_id"]
    first["event_id"], second["event_id"] = first["event_id"][:-1], shifted
    assert told(carry([first, second])) == ([], [(10, "id_mismatch"), (11, "id_mismatch")])


def test_a_header_without_a_value_agrees_with_nothing() -> None:
    whole = carry([rating("C1"), rating("C2"), rating("C3")])
    for offset, (name, reason) in enumerate((("ce_id", "id_mismatch"), ("ce_type", "envelope_mismatch"))):
        headers: Any = tuple((n, None if n == name else v) for n, v in whole[offset].headers)
        whole[offset] = replace(whole[offset], headers=headers)
        assert (10 + offset, reason) in told(whole)[1]
    assert told(whole)[0] == ["C3"]


def test_headers_in_another_order_or_with_more_of_them_are_read_all_the_same() -> None:
    whole = carry([rating("C1"), rating("C2"), rating("C3")])
    whole[1] = replace(whole[1], headers=tuple(reversed(whole[1].headers)))
    whole[2] = replace(whole[2], headers=(*whole[2].headers, ("traceparent", b"00")))
    assert told(whole) == (["C1", "C2", "C3"], [])


def test_a_type_that_only_the_second_header_of_that_name_agrees_with_is_refused() -> None:
    one = carry([rating("C1")])[0]
    assert told([replace(one, headers=(("ce_type", b"other"), *one.headers))]) == ([], [(10, "envelope_mismatch")])


def test_a_name_of_as_many_characters_as_may_be_is_read_and_a_longer_one_refused() -> None:
    carried = carry([rating("C1"), rating("办" * 160), rating("办" * 161), rating("C" * 161)])
    assert told(carried) == (["C1", "办" * 160], [(12, "too_large"), (13, "too_large")])
    assert [e.carried.offset for e in steps.decode_rows(carried)[0]] == [10, 11]


@pytest.mark.parametrize("name", ["occurred_at", "received_at", "entered_at"])
def test_an_instant_whose_day_in_shanghai_is_after_the_year_9999_is_refused_by_column_and_by_row(name: str) -> None:
    last = int(datetime.fromisoformat("9999-12-31T23:59:59.999+08:00").timestamp() * 1000)
    records = [{**rating(f"C{n}"), name: last + n} for n in range(2)]
    carried = carry([{**r, "event_id": str(envelope.event_id(RATING, r))} for r in records])
    assert iso(steps.decode_row(carried[0]).record[name])[:10] == "9999-12-31"
    assert told(carried) == (["C0"], [(11, "bad_event_time")])
    assert [r.fault.reason for r in steps.decode_rows(carried)[1]] == ["bad_event_time"]


def test_a_client_s_records_are_read_as_carried_ones_with_their_places() -> None:
    carried = carry([rating("C1"), rating("C2"), rating("C3")])
    raws = [SimpleNamespace(offset=c.offset, key=c.key, value=c.value, headers=list(c.headers)) for c in carried]
    lot = Lot.joined(RATING, [(3, raws[:2]), (5, raws[2:])])
    assert list(lot) == [*carried[:2], replace(carried[2], partition=5)]
    assert list(lot[1:]) == list(lot)[1:]
    read = frames.read(RATING, lot).frame
    assert read.select("partition", "offset").rows() == [(3, 10), (3, 11), (5, 12)]


def test_an_absent_value_is_refused_and_its_neighbour_kept() -> None:
    carried = carry([rating("C1"), rating("C2")])
    raws = [SimpleNamespace(offset=c.offset, key=c.key, value=c.value, headers=c.headers) for c in carried]
    raws[0].value = None
    cases, refused = told(Lot.joined(RATING, [(0, raws)]))
    assert cases == ["C2"]
    assert [offset for offset, _ in refused] == [10]


@pytest.mark.parametrize("topic", [t for t in INBOUND if columns.readable(t)], ids=lambda topic: topic.name)
def test_events_are_the_same_however_many_come_at_once(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Types of values too: what is stored as JSON is made of them."""
    rng = random.Random(1)
    good = [corpus.good(rng, f"g-{n}", topic).payload for n in range(30)]
    odd = [payload for payload, _ in corpus.corpus(5, 850) if payload.topic is topic]
    payloads = enumerate([*good, *odd, *good])
    raws = [SimpleNamespace(offset=n, key=p.key, value=p.value, headers=p.headers) for n, p in payloads]
    carried = list(Lot.joined(topic, [(3, raws)]))
    by_row = steps.decode_rows(carried)
    monkeypatch.setattr(frames, "ENOUGH_EVENTS", 1)
    events, refused = frames.events(topic, carried)
    assert events == by_row[0]
    assert [{n: type(v) for n, v in e.record.items()} for e in events] == [
        {n: type(v) for n, v in e.record.items()} for e in by_row[0]
    ]
    assert [(r.carried.offset, r.fault) for r in refused] == [(r.carried.offset, r.fault) for r in by_row[1]]
    assert len(events) >= 60
    assert refused


ODD = st.sampled_from(["", "\\N", "\\.", "\\", "\t", "\n", "\r", "\r\n", '"', '""', ",", "\x01", "\x0b", "NULL"])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ROW = st.tuples(st.none() | ODD | TEXT, st.none() | st.integers(-(2**31), 2**31 - 1), ODD | TEXT, st.booleans())


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_whatever_a_text_holds_it_is_the_same_in_the_table(engine: sa.Engine, rows: list[tuple[Any, ...]]) -> None:
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Int64, "c": pl.String, "d": pl.Boolean}, orient="row")
    with engine.begin() as tx:
        tx.execute(sa.text("CREATE TEMPORARY TABLE odd (a text, b bigint, c text, d boolean) ON COMMIT DROP"))
        for quoted in (False, True):
            frames.write(tx, frames.rows("odd", frame, quoted=quoted))
        assert [tuple(r) for r in tx.execute(sa.text("SELECT * FROM odd"))] == rows * 2


@pytest.mark.parametrize(("text", "kind"), [("办件", b"text"), ("", b"text"), ("\\N", b"csv"), ("a\tb", b"csv")])
def test_only_what_would_have_to_be_escaped_is_quoted(text: str, kind: bytes) -> None:
    frame = pl.DataFrame({"a": ["one", text, None]})
    assert kind in frames.rows("t", frame).statement
    assert b"csv" in frames.rows("t", frame, quoted=True).statement


@pytest.mark.parametrize("name", ["special_started_at", "special_ended_at", "corrected_at", "verify_by"])
def test_an_instant_beyond_what_the_intake_takes_is_refused_by_row_and_by_column(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = -2_208_988_800_000, 253_402_271_999_999  # from 1900 UTC to 9999 in Asia/Shanghai
    moments = [None, first, last, first - 1, last + 1, 2**63 - 1, -(2**63)]
    carried = []
    for number, moment in enumerate(moments):
        record = {
            "event_type": "case.accepted", "region": "430903", "department": "HS-ZRZYJ",
            "occurred_at": 1_600_000_000_000, "received_at": 1_600_000_001_000, "case_no": f"C{number}", "event_no": 1,
            "item_code": "ITEM", name: moment,
        }  # fmt: skip
        record["event_id"] = str(envelope.event_id(CASE, record))
        headers = tuple(envelope.headers(CASE, record))
        carried.append(Carried(CASE, 0, number, f"C{number}".encode(), codec.encode(CASE, record), headers))
    events, by_row = steps.decode_rows(carried)
    monkeypatch.setattr(frames, "FEW", 0)
    read = frames.read(CASE, carried)
    assert [e.record["case_no"] for e in events] == read.frame["case_no"].to_list() == ["C0", "C1", "C2"]
    for refused in (by_row, read.refused):
        assert [(r.carried.offset, r.fault.reason, r.fault.field) for r in refused] == [
            (offset, "bad_event_time", name) for offset in (3, 4, 5, 6)
        ]
