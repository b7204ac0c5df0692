"""Records that no department would send, past the publisher and among good traffic: each must end as a dead letter for
its own reason, and nothing else may. The oracle compares place by place (``notebook.poisoned``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa
from confluent_kafka import Producer

from govbus.chaos import notebook
from govbus.chaos.corpus import Payload, corpus
from govbus.chaos.cycles import ended, last_words, look, recovered
from govbus.chaos.ground import ground, scratch
from govbus.chaos.rounds import Tell, stalled, told
from govbus.chaos.stage import Stage, stage
from govbus.chaos.watch import Stalled

AT_ONCE = 40
CASES_A_PAYLOAD = 0.05
LETTERS_SQL = "SELECT reason, count(*) FROM dead_letter WHERE partition IS NOT NULL GROUP BY reason ORDER BY reason"


def run(count: int, seed: int, tell: Tell, planted: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """``count`` payloads in one round."""
    cases = max(60, int(count * CASES_A_PAYLOAD))
    with scratch() as home, ground(home) as bus, stage(bus, seed, cases, planted) as made:
        by: Counter[str] = Counter()
        letters: dict[str, int] = {}
        try:
            for done, part in _parts(corpus(seed, count)):
                tell("poison", done, count)
                send(made, part)
                by.update(payload.damage for payload, _ in part)
                made.flow()
                look(made)
            recovered(made, "poison")
            verdict = made.finish()
            letters = _letters(made)
        except Stalled as error:
            verdict = stalled(error)
        figures = told(verdict, seed)
        figures["faults"] += [
            f"seed {seed}: a process ended by itself: {one}{last_words(made, one.split()[0])}" for one in ended(made)
        ]
        clean = not figures["faults"]
        return {
            "payloads": sum(by.values()), "by": dict(sorted(by.items())), "dead_letters": letters, "seeds": [seed],
            **figures, "clean": clean, "met": clean,
        }  # fmt: skip


Judged = tuple[Payload, frozenset[str]]


def _parts(payloads: Iterator[Judged]) -> Iterator[tuple[int, list[Judged]]]:
    done = 0
    while part := list(islice(payloads, AT_ONCE)):
        yield done, part
        done += len(part)


def send(made: Stage, part: Sequence[Judged]) -> None:
    """Put the payloads into the log and into the notebook, each with its place. Raises ``TimeoutError``."""
    producer = Producer({"bootstrap.servers": made.ground.kafka, "partitioner": "murmur2_random", "linger.ms": 5})
    places: list[notebook.Poisoned] = []

    for payload, reasons in part:

        def landed(error: Any, message: Any, reasons: frozenset[str] = reasons) -> None:
            if error is None:
                place = (message.topic(), message.partition(), message.offset())
                places.append(notebook.Poisoned(*place, sorted(reasons)))

        headers = list(payload.headers)
        producer.produce(payload.topic.name, payload.value, payload.key, headers=headers, on_delivery=landed)
    if producer.flush(60) or len(places) < len(part):
        raise TimeoutError("Kafka does not take the poison")
    notebook.poison(made.ground.home, places)


def _letters(made: Stage) -> dict[str, int]:
    with made.watch.engine.connect() as tx:
        return dict(tx.execute(sa.text(LETTERS_SQL)).tuples().all())
