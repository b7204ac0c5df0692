"""``govbus bench workers``: two workers against one on the same machine, and, from the costs measured for one event,
what four brokers and eight workers would carry on paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import ours, ratings
from bench.given import Given
from bench.measure import Figures, Round, Target, report
from bench.stand import Stand, stand

BROKERS, REPLICAS, WORKERS = 4, 3, 8
POSTGRES_CORES = (8, 16, 32)
BUSY = 0.7
"""Share of a core that may be used in a plan; the rest is for what is not measured here."""
TARGETS = (Target("two workers no slower than one", figure="two_to_one", least=1.0),)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds over ``given.events`` ratings, one worker and two in turn."""
    with stand() as place:
        before = place.cpu()["kafka"]
        ratings.fill(place, given)
        written = {"kafka_fill_cpu_us": 1e6 * (place.cpu()["kafka"] - before) / given.events}
        rounds = [_round(place, given, number, written if number == 0 else {}) for number in range(given.rounds)]
        found = report("workers", rounds, TARGETS, events=given.events)
    return {**found, "paper": plan(found["ours"])}


def _round(place: Stand, given: Given, number: int, written: Figures) -> Round:
    order = (1, 2) if number % 2 == 0 else (2, 1)
    found = {n: _measured(place, given, n, number) for n in order}
    two = {f"{name}_two_workers": value for name, value in found[2].items()}
    ratio = {"two_to_one": found[2]["rate"] / found[1]["rate"]}
    return Round({**found[1], **two, **ratio, **written})


def _measured(place: Stand, given: Given, workers: int, number: int) -> dict[str, float]:
    with place.database() as url, place.directory(f"workers-{workers}-{number}") as home:
        settle = workers == 1 and number == 0  # once: what one event costs with all that follows from it
        work = ratings.work(given.events, "--without-uploads", settle=settle)
        step = f"{workers} worker{'s' if workers > 1 else ''}"
        return ours.measure(place, url, work, home, lambda n: given.tell(step, n, given.events), workers)


def plan(costs: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``paper`` by the cost of an event until it is committed, and by that with all that follows from it."""
    return {"until committed": paper(costs), "with rollups merged and said": paper(costs, "_settled")}


def paper(costs: Mapping[str, float], suffix: str = "") -> dict[str, float]:
    """Events a second that each part would carry at 70 % of its cores, and what the whole carries: the least of them.

    A core for each worker, two for each broker; one PostgreSQL server. The brokers write an event once for each of
    three replicas, at what it cost one of them to take it while the topic was filled, and read it to the worker once;
    what is said and other readers are not in it. ``suffix``: which of the measured costs.
    """
    worker, read, server = (costs[f"{name}_cpu_us{suffix}"] for name in ("worker", "kafka", "postgres"))
    broker = REPLICAS * costs["kafka_fill_cpu_us"] + read
    parts = {
        f"{WORKERS} workers": WORKERS * BUSY / worker * 1e6,
        f"{BROKERS} brokers": BROKERS * 2 * BUSY / broker * 1e6,
    }
    clients = min(parts.values())
    for cores in POSTGRES_CORES:
        parts[f"PostgreSQL, {cores} cores"] = carried = cores * BUSY / server * 1e6
        parts[f"the whole, {cores} cores"] = min(clients, carried)
        parts[f"its write-ahead log, MB/s, {cores} cores"] = min(clients, carried) * costs[f"wal_bytes{suffix}"] / 1e6
    return parts
