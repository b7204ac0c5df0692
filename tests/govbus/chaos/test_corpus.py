"""The corpus is the same for the same seed, its judge takes good records for good, and the product agrees with it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from govbus.chaos import corpus
from govbus.chaos.corpus import Payload
from schemas import columns
from schemas.topics import DEADLETTER, INBOUND, Topic
from streams.store import frames, outbox, steps
from streams.store.lot import Lot
from streams.store.projection import Refused

COUNT = 850


def carried(topic: Topic, payloads: Sequence[Payload]) -> Lot:
    """As the worker gets them of Kafka's client."""
    raws = [SimpleNamespace(offset=n, key=p.key, value=p.value, headers=p.headers) for n, p in enumerate(payloads)]
    return Lot.joined(topic, [(0, raws)])


def test_the_same_seed_makes_the_same_corpus() -> None:
    assert list(corpus.corpus(7, 60)) == list(corpus.corpus(7, 60))
    assert list(corpus.corpus(7, 60)) != list(corpus.corpus(8, 60))


def test_every_damage_comes_in_turn_and_over_all_topics() -> None:
    made = [payload for payload, _ in corpus.corpus(1, COUNT)]
    assert set(Counter(p.damage for p in made).values()) == {COUNT // len(corpus.DAMAGES)}
    assert {p.topic for p in made} == set(INBOUND)


def test_undamaged_records_are_good_for_the_judge_and_for_the_product() -> None:
    rng = random.Random(1)
    for topic in INBOUND:
        good = [corpus.good(rng, f"g-{n}", topic).payload for n in range(20)]
        assert {corpus.judge(p) for p in good} == {frozenset()}
        events, refused = steps.decode_rows(carried(topic, good))
        assert (len(events), refused) == (20, [])


def test_rows_and_columns_refuse_every_payload_for_a_reason_that_the_judge_allows() -> None:
    whole = list(corpus.corpus(3, COUNT))
    for topic in INBOUND:
        made = [(p, why) for p, why in whole if p.topic is topic]
        lot = carried(topic, [p for p, _ in made])
        by_column = [frames.read(topic, lot).refused] if columns.readable(topic) else []
        for refused in (steps.decode_rows(lot)[1], *by_column):
            found = {r.carried.offset: r.fault.reason for r in refused}
            wrong = [(p.damage, found.get(n), why) for n, (p, why) in enumerate(made) if found.get(n) not in why]
            assert wrong == []
            assert all(outbox.row(DEADLETTER, said_of(r)) for r in refused)


def said_of(refused: Refused) -> Mapping[str, Any]:
    """What is said of a dead letter."""
    return steps._dead_said(refused, steps._dead_row(refused)).record
