"""``govbus bench growth``: ten times as many ratings: does the rate fall, does the worker's memory grow?"""

from __future__ import annotations

import itertools
from typing import Any

from bench import load, ours, ratings
from bench.given import Given
from bench.measure import Round, Target, report
from bench.stand import Stand, stand
from schemas.topics import RATING

FACTOR = 10
TARGETS = (
    Target("ten times the events: rate within 15 %", figure="rate_kept", least=0.85),
    Target("ten times the events: memory within 20 %", figure="memory_grown", most=1.2),
)


def run(given: Given) -> dict[str, Any]:
    """The report over ``given.events`` ratings and, before, the first tenth of them, ``given.rounds`` times each.

    ``rate_kept`` is the large run's rate over the small one's, ``memory_grown`` likewise of the worker's memory. The
    small runs come before the large ones, because the log only grows.
    """
    small = max(1_000, given.events // FACTOR)
    left = (m for section in load.ratings(given.events) for m in load.messages(RATING, section))
    with stand() as place:
        found = []
        for count, more in ((small, small), (given.events, given.events - small)):
            for done in load.pour(place.kafka, RATING, itertools.islice(left, more)):
                given.tell("fill Kafka", done, more)
            found.append([_measured(place, given, count, number) for number in range(given.rounds)])
    rounds = [_round(few, many) for few, many in zip(*found, strict=True)]
    return report("growth", rounds, TARGETS, events=given.events)


def _measured(place: Stand, given: Given, count: int, number: int) -> dict[str, float]:
    """One fresh worker over the log as it is."""
    with place.database() as url, place.directory(f"growth-{count}-{number}") as home:
        work = ratings.work(count, "--without-uploads")
        return ours.measure(place, url, work, home, lambda n: given.tell(f"{count:,} ratings", n, count))


def _round(few: dict[str, float], many: dict[str, float]) -> Round:
    small = {f"{name}_small": value for name, value in few.items()}
    kept = {"rate_kept": many["rate"] / few["rate"], "memory_grown": many["worker_mb"] / few["worker_mb"]}
    return Round({**many, **small, **kept})
