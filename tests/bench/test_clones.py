"""Clones are events as a publisher would have made them: right ids, right keys, each of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench import clones
from schemas import codec, envelope
from schemas.topics import CASE, LICENCE, Topic

MADE = {
    CASE: clones.case_templates(200)[:40],
    LICENCE: clones.stock_templates(20),
}


@pytest.mark.parametrize("topic", MADE)
def test_a_clone_decodes_and_its_id_key_and_headers_are_derived_from_it(topic: Topic) -> None:
    for template in MADE[topic]:
        key, value, headers = template.clone(4711)
        record = codec.decode(value, topic)
        assert record["event_id"] == str(envelope.event_id(topic, record))
        assert key.decode() == record[topic.key]
        assert headers == envelope.headers(topic, record)


@pytest.mark.parametrize("topic", MADE)
def test_no_two_clones_are_the_same_event(topic: Topic) -> None:
    made = list(clones.messages(MADE[topic], 10 * len(MADE[topic])))
    assert len({dict(headers)["ce_id"] for _, _, headers in made}) == len(made) == 10 * len(MADE[topic])


def test_events_of_cases_come_in_the_order_in_which_the_bus_hears_of_them() -> None:
    heard = [codec.decode(value, CASE)["received_at"] for _, value, _ in clones.messages(MADE[CASE], 80)]
    assert all(earlier <= later for earlier, later in pairwise(heard))


def test_open_cases_are_accepted_within_weeks_and_nothing_more_is_told_of_them() -> None:
    templates = clones.open_case_templates(30)
    lives: dict[str, list[str]] = {}
    for template in templates:
        lives.setdefault(template.key, []).append(template.record["event_type"])
    assert set(map(tuple, lives.values())) == {("case.submitted", "case.accepted")}
    heard = [t.record["received_at"] for t in templates if t.record["event_type"] == "case.accepted"]
    assert max(heard) - min(heard) < 7 * 86_400_000
