"""A province that is slow, refuses, answers twice or late, or lies in its receipts, while events flow; and whether the
worker feels it when the province is slow.

The province is the product's own, in its own process, with moods (``moods``).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from connectors.publisher import Publisher
from govbus.chaos import moods
from govbus.chaos.cycles import CASES_A_FAULT, Fault, rounds
from govbus.chaos.ground import ground, scratch
from govbus.chaos.rounds import Tell
from govbus.chaos.stage import LOOK_S, Stage, percentile, stage
from govbus.district.generator import SPAN
from schemas.topics import TICKET
from streams.store.engine import connect

MOODY, HASTY = "moody", "hasty"
PLANTED: Mapping[str, Sequence[str]] = {"province": (MOODY,), "push": (HASTY,)}
BROKEN_S = (1.0, 4.0)
SPAN_S, SPANS = 8.0, 6
EVERY_S = 0.04
ASK_S = 0.002
CASES_A_SPAN = 100
SLOW_TARGET = 1.10
"""The worker's p99 with a slow province, at most so many times that with a quick one."""
APPLIED_SQL = "SELECT count(*) FROM ticket_event WHERE event_id = :event_id"


def run(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` moods, in rounds; with all of them, also how much a slow province costs the worker."""
    whole = count >= len(moods.PASSING)
    found = rounds(setting, "province", count, seed, tell, ("push",) if whole else ())
    if whole:
        tell("slow province", 0, SPANS)
        found["publish_to_commit"] = slowness(seed)
        found["met"] = found["clean"] and found["publish_to_commit"]["ratio_p99"] < SLOW_TARGET
    return found


@contextlib.contextmanager
def setting(
    seed: int, count: int, planted: Mapping[str, Sequence[str]] | None = None
) -> Iterator[tuple[Stage, list[Fault]]]:
    """A round's bus with a moody province; the moods in an order of the seed's own."""
    both = {kind: (*PLANTED.get(kind, ()), *(planted or {}).get(kind, ())) for kind in {*PLANTED, *(planted or {})}}
    with scratch() as home, ground(home) as bus, stage(bus, seed, CASES_A_FAULT * count, both) as made:
        good = partial(moods.tell, home, "good")
        found = [Fault(mood, partial(moods.tell, home, mood), good, BROKEN_S) for mood in moods.PASSING]
        made.rng.shuffle(found)
        yield made, found


# --- does the worker feel a slow province? ---


def slowness(seed: int, spans: int = SPANS, span_s: float = SPAN_S) -> dict[str, float]:
    """Milliseconds from publishing to the committed effect, with a quick and a slow province in turn."""
    waits: dict[moods.Mood, list[float]] = {"good": [], "slow": []}
    with scratch() as home, ground(home) as bus, stage(bus, seed, CASES_A_SPAN * spans, PLANTED) as made:
        engine = connect(bus.database_url)
        publisher = Publisher(engine, "HS-QZRXB", "430903", lambda: SPAN.start)
        for number in range(spans):
            mood: moods.Mood = ("good", "slow")[number % 2]
            moods.tell(home, mood)
            made.wait(1.0)
            waits[mood] += _measured(made, publisher, engine, span_s)
        engine.dispose()
    quick, slow = (percentile(found, 0.99) for found in waits.values())
    return {
        "quick_p50_ms": percentile(waits["good"], 0.5), "slow_p50_ms": percentile(waits["slow"], 0.5),
        "quick_p99_ms": quick, "slow_p99_ms": slow, "ratio_p99": round(slow / quick, 3) if quick else 0.0,
        "measured": float(sum(map(len, waits.values()))),
    }  # fmt: skip


def _measured(made: Stage, publisher: Publisher, engine: sa.Engine, seconds: float) -> list[float]:
    """Publish a ticket again and again while everything else flows; how long until each is applied, in ms."""
    waits: list[float] = []
    end = flowed = time.monotonic()
    end += seconds
    while time.monotonic() < end:
        if time.monotonic() - flowed > LOOK_S:
            made.flow()
            flowed = time.monotonic()
        waits.append(_one(publisher, engine))
        time.sleep(EVERY_S)
    return waits


def _one(publisher: Publisher, engine: sa.Engine) -> float:
    began = time.monotonic()
    [told] = publisher.publish(TICKET, [_ticket()])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        while not tx.execute(sa.text(APPLIED_SQL), {"event_id": told.event_id}).scalar_one():
            time.sleep(ASK_S)
    return (time.monotonic() - began) * 1_000


def _ticket() -> dict[str, Any]:
    return {
        "event_type": "ticket.opened", "region": "430903", "department": "HS-QZRXB", "occurred_at": SPAN.start,
        "ticket_no": f"PROBE-{uuid.uuid4()}", "event_no": 1,
    }  # fmt: skip
