"""Versions, ids and marks of contracts."""

from __future__ import annotations

import pytest

from schemas.contracts import (
    contract,
    event_types,
    field_specs,
    personal_fields,
    schema_id,
    version,
    written_by,
)
from schemas.topics import BY_NAME, CASE, DEADLETTER, RATING, TOPICS, Topic

ENVELOPE = [
    "event_id",
    "event_type",
    "region",
    "department",
    "occurred_at",
    "occurred_text",
    "entered_at",
    "received_at",
]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_a_contract_begins_with_the_envelope_and_holds_key_and_identity(topic: Topic) -> None:
    names = list(field_specs(topic))

    assert names[:8] == ENVELOPE
    assert {topic.key, *topic.identity} <= set(names)
    assert contract(topic)["namespace"] == f"cn.govbus.{topic.domain}"


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_optional_numbers_and_times_default_to_null_and_texts_to_nothing(topic: Topic) -> None:
    for name, spec in field_specs(topic).items():
        if isinstance(spec["type"], list):
            assert (spec["type"][0], spec["default"]) == ("null", None), name


def test_the_fourteen_topics_have_fourteen_ids() -> None:
    assert len(BY_NAME) == len({t.schema_id for t in TOPICS}) == len(TOPICS) == 14
    assert sorted(t.schema_id % 1000 for t in TOPICS) == list(range(1, 15))


def test_a_later_version_has_an_id_a_thousand_higher() -> None:
    assert (version(RATING), schema_id(RATING, 1), schema_id(RATING, 3)) == (1, 3, 2003)
    assert written_by(3) == (RATING, contract(RATING))


@pytest.mark.parametrize("identifier", [0, 15, 1003, 2**31])
def test_an_id_that_was_never_published_is_nobodys(identifier: int) -> None:
    assert written_by(identifier) is None


def test_personal_fields_are_those_that_name_or_quote_people() -> None:
    assert personal_fields(RATING) == {"comment", "rater_name"}
    assert personal_fields(CASE) == {"applicant_name", "applicant_id", "handler_name"}
    assert personal_fields(DEADLETTER) == {"original", "original_key"}


def test_no_personal_field_is_key_or_identity() -> None:
    for topic in TOPICS:
        assert not personal_fields(topic) & {topic.key, *topic.identity, "event_type", "region", "department"}


def test_an_event_type_travels_on_one_topic_only() -> None:
    told = [kind for topic in TOPICS for kind in event_types(topic)]

    assert len(told) == len(set(told))
