"""The corpus is the same for the same seed, its judge takes good records for good, and the product agrees with it."""

from __future__ import annotations

import random
from collections import Counter

from govbus.chaos import corpus
from govbus.chaos.corpus import Payload
from schemas import columns
from schemas.topics import INBOUND
from streams.store import frames, steps
from streams.store.projection import Carried

COUNT = 850


def carried(payload: Payload, offset: int) -> Carried:
    headers = tuple((name, value or b"") for name, value in payload.headers)
    return Carried(payload.topic, 0, offset, payload.key, payload.value or b"", headers)


def test_the_same_seed_makes_the_same_corpus() -> None:
    assert list(corpus.corpus(7, 60)) == list(corpus.corpus(7, 60))
    assert list(corpus.corpus(7, 60)) != list(corpus.corpus(8, 60))


def test_every_damage_comes_in_turn_and_over_all_topics() -> None:
    made = [payload for payload, _ in corpus.corpus(1, COUNT)]
    assert set(Counter(p.damage for p in made).values()) == {COUNT // len(corpus.DAMAGES)}
    assert {p.topic for p in made} == set(INBOUND)


def test_undamaged_records_are_good_for_the_judge_and_for_the_product() -> None:
    rng = random.Random(1)
    good = [corpus.good(rng, f"g-{n}").payload for n in range(200)]
    assert {corpus.judge(p) for p in good} == {frozenset()}
    events, refused = steps.decode_rows([carried(p, n) for n, p in enumerate(good)])
    assert (len(events), refused) == (200, [])


def test_rows_and_columns_refuse_every_payload_for_a_reason_that_the_judge_allows() -> None:
    for topic in INBOUND:
        made = [(p, why) for p, why in corpus.corpus(3, COUNT) if p.topic is topic]
        lot = [carried(p, n) for n, (p, _) in enumerate(made)]
        by_column = [frames.read(topic, lot).refused] if columns.readable(topic) else []
        for refused in (steps.decode_rows(lot)[1], *by_column):
            found = {r.carried.offset: r.fault.reason for r in refused}
            wrong = [(p.damage, found.get(n), why) for n, (p, why) in enumerate(made) if found.get(n) not in why]
            assert wrong == []
