"""Identity and headers of an event: the same event has the same id everywhere, and headers tell no person."""

from __future__ import annotations

import uuid

import pytest

from schemas import examples
from schemas.codec import decode, encode
from schemas.envelope import derived_id, digest, event_id, headers, without_receipt
from schemas.topics import CASE, RATING, TOPICS, Topic

RECORD = decode(encode(RATING, examples.load(RATING)["named-bad-rating-with-text"]))


def test_an_id_is_uuid5_of_topic_place_and_identity() -> None:
    namespace = uuid.uuid5(uuid.NAMESPACE_DNS, "govbus.heshan.gov.cn")
    text = "\x1f".join(
        [
            "service.rating.v1",
            "430903",
            "HS-ZJJ",
            "11430903MBDEM011134000117024000202003230007",
            "1",
            "1",
            "0",
        ]
    )

    assert event_id(RATING, RECORD) == uuid.uuid5(namespace, text)
    assert event_id(RATING, RECORD) == uuid.UUID("b0a3144d-8634-574e-a048-dd39f7a9a467")


@pytest.mark.parametrize("field", ["region", "department", "case_no", "service_no", "assess_no", "revision"])
def test_another_identity_is_another_id(field: str) -> None:
    assert event_id(RATING, RECORD | {field: "9"}) != event_id(RATING, RECORD)


@pytest.mark.parametrize("field", ["comment", "received_at", "occurred_at", "satisfaction_code"])
def test_other_content_is_the_same_id(field: str) -> None:
    assert event_id(RATING, RECORD | {field: 9}) == event_id(RATING, RECORD)


def test_parts_cannot_run_together() -> None:
    assert derived_id("a", "bc") != derived_id("ab", "c")


def test_headers_are_cloudevents_in_binary_mode() -> None:
    assert headers(RATING, RECORD) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"b0a3144d-8634-574e-a048-dd39f7a9a467"),
        ("ce_source", b"/430903/HS-ZJJ"),
        ("ce_type", b"cn.govbus.rating.given.v1"),
        ("ce_time", b"2020-09-21T03:00:00.000Z"),
        ("ce_subject", b"11430903MBDEM011134000117024000202003230007"),
        ("content-type", b"application/vnd.confluent.avro"),
    ]


def test_a_digest_is_the_first_half_of_sha_256() -> None:
    assert digest(b"abc") == uuid.UUID("ba7816bf-8f01-cfea-4141-40de5dae2223")


def test_topics_without_shared_identity_never_share_an_id() -> None:
    assert event_id(CASE, RECORD | {"event_no": 1}) != event_id(RATING, RECORD)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
@pytest.mark.parametrize("entered", [None, 0, 63, 64, 1_600_000_000_000])
@pytest.mark.parametrize("received", [0, 1, 64, 8_191, 8_192, 1_600_000_000_000, 253_402_300_799_999])
def test_without_its_receipt_a_value_is_the_one_received_at_the_epoch(
    topic: Topic, entered: int | None, received: int
) -> None:
    for name, example in examples.load(topic).items():
        record = example | {"entered_at": entered, "occurred_text": "二〇二〇年" * 30}
        at_epoch = encode(topic, record | {"received_at": 0})
        assert without_receipt(encode(topic, record | {"received_at": received})) == at_epoch, name
