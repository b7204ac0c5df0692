"""Examples are test vectors: every one encodes, decodes, and says codes of the sets its contract allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from schemas import codesets, examples
from schemas.codec import decode, encode
from schemas.columns import decode_columns, readable
from schemas.contracts import contract, event_types
from schemas.envelope import event_id, headers
from schemas.evolution import example_faults
from schemas.readable import from_json, to_json
from schemas.topics import RATING, TOPICS, UPLOAD, Topic

FILES = [(t, name) for t in TOPICS for name in examples.load(t)]
every = pytest.mark.parametrize(("topic", "situation"), FILES, ids=[f"{t.name}/{name}" for t, name in FILES])


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_a_topic_has_three_situations_named_in_words(topic: Topic) -> None:
    names = list(examples.load(topic))

    assert len(names) >= 3
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){2,}", name) for name in names)


@every
def test_an_example_travels_and_comes_back(topic: Topic, situation: str) -> None:
    record = examples.load(topic)[situation]
    value = encode(topic, record)
    full = decode(value, topic)

    assert record.items() <= full.items()
    assert from_json(topic, to_json(topic, full)) == full
    assert full["event_id"] == str(event_id(topic, full))
    assert full["event_type"] in event_types(topic)
    assert list(example_faults(topic, situation, record)) == []


@every
def test_an_examples_headers_hold_no_personal_data(topic: Topic, situation: str) -> None:
    full = decode(encode(topic, examples.load(topic)[situation]))
    personal = [full[f["name"]] for f in contract(topic)["fields"] if f.get("personal") and full[f["name"]]]
    said = b"\n".join(value for _, value in headers(topic, full))

    assert not [p for p in personal if (p if isinstance(p, bytes) else p.encode()) in said]


def test_the_examples_of_a_topic_read_by_column_as_by_row() -> None:
    for topic in filter(readable, TOPICS):
        values = [encode(topic, r) for r in examples.load(topic).values()]
        rows = [decode(v) for v in values]
        read = decode_columns(topic, values, [r["event_id"].encode() for r in rows])
        assert read.rows(named=True) == rows


def test_a_correction_of_a_rating_bears_the_time_of_the_rating_that_it_corrects() -> None:
    """A rating counts on the day of its ``occurred_at``, of which the highest revision speaks."""
    told = [decode(encode(RATING, record)) for record in examples.load(RATING).values()]
    given = {_assessment(r): r["occurred_at"] for r in told if r["revision"] == 0}
    later = [r for r in told if r["event_type"] != "rating.given"]

    assert later
    assert all(r["occurred_at"] == given[_assessment(r)] < r["entered_at"] for r in later)
    assert all(r["occurred_at"] == r["assess_time"] for r in examples.load(UPLOAD).values())


def _assessment(rating: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(rating[name] for name in RATING.identity if name != "revision")


def test_every_people_and_bodys_number_in_examples_is_of_the_synthetic_ranges() -> None:
    """DOMAIN §1.4, §1.5: citizens born in 1900, bodies with DEM in their organisation code."""
    for topic, situation in FILES:
        text = (examples.HERE / topic.name / f"{situation}.json").read_text(encoding="utf-8")
        assert re.findall(r"\b\d{17}[\dXx]\b", text) == re.findall(r"\b430903190001\d{5}[\dXx]\b", text)
        bodies = re.findall(r"\b[159][1-9]\d{6}[0-9A-Z]{10}", text)
        assert all("DEM" in body for body in bodies), situation


def test_every_codeset_of_every_contract_exists() -> None:
    wanted = {f["codeset"] for t in TOPICS for f in contract(t)["fields"] if "codeset" in f}
    wanted |= {s for t in TOPICS for f in contract(t)["fields"] for s in f.get("codesets", [])}

    assert wanted <= set(codesets.ids())
