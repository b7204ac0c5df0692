"""Many clocks are open and no event comes: how long after a due time its card is on the topic.

Worker and relay are real processes. The worker's wall clock goes as the machine's, but jumps over the days between two
due times (``bench.jumping``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import clones, jumping, load, log, ours
from bench.chain import relay
from bench.given import Given
from bench.measure import percentile
from bench.ours import Work
from bench.publishing import UNSENT
from bench.stand import Stand
from schemas import codec
from schemas.clock import wall_clock
from schemas.errors import GovbusError
from schemas.topics import ALERT, CASE
from streams.store.engine import connect

COPIES = 20
"""Clocks that run out at the same moment, of those that are waited for."""
WEEKS = (1, 2, 3)
"""How long before the others those are accepted that are waited for: two, three and four weeks are usual limits, so
all of these run out in the one week in which nothing else does.
"""
LEAD_MS = 2_000
"""How long before a due time the clock arrives."""
LONGEST_S = 60.0
MOMENTS = """SELECT DISTINCT next_check_at FROM case_state WHERE next_check_at < :until
             AND next_check_at > (SELECT max(watermark) FROM cursor WHERE processor = 'judge') ORDER BY 1"""
OTHERS = "SELECT min(next_check_at) FROM case_state"
LEFT = "SELECT count(*) FROM case_state WHERE next_check_at <="


def figures(place: Stand, given: Given, url: str, home: Path, probes: int) -> dict[str, float]:
    """``punctual_p50_ms``, ``…_p99_ms``, ``…_max_ms``: from the moment at which a card is due until its record is in
    Kafka (its timestamp); ``punctual_cards``: of how many. ``url``: a database with open clocks that has
    not heard of the ``probes`` yet.
    """
    engine = connect(url)
    others = int(ours.ask(engine, OTHERS))
    work = Work((CASE,), probes, lambda _: None, "", ("--clock", "watermark"))
    ours.measure(place, url, work, home / "probes", lambda n: given.tell("probes", n, probes))
    with engine.connect() as tx:
        moments = [int(row[0]) for row in tx.execute(sa.text(MOMENTS), {"until": others})]
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        relay(place, url, home, stack).wait_leading(engine)
        waits = _waits(place, engine, given, home, stack, moments)
    return {"punctual_cards": float(len(waits)), "punctual_p50_ms": percentile(waits, 0.5),
            "punctual_p99_ms": percentile(waits, 0.99), "punctual_max_ms": max(waits)}  # fmt: skip


def pour(place: Stand, given: Given) -> int:
    """Put more accepted cases into the log, whose clocks run out before all others do; how many events."""
    messages = [
        template.clone(10**clones.DIGITS - weeks * COPIES + copy)
        for weeks in sorted(WEEKS, reverse=True)
        for template in clones.open_case_templates(weeks_before=weeks)
        for copy in range(COPIES)
    ]
    before = sum(log.ends(place.kafka, CASE).values())
    for done in load.pour(place.kafka, CASE, messages):
        given.tell("probes", done, len(messages))
    return sum(log.ends(place.kafka, CASE).values()) - before


def _waits(
    place: Stand, engine: sa.Engine, given: Given, home: Path, stack: ExitStack, moments: list[int]
) -> list[float]:
    """For each card the milliseconds from its due time until Kafka had it."""
    ahead = home / "ahead"
    begin = moments[0] - LEAD_MS - LEAD_MS
    jumping.put(ahead, begin - wall_clock())
    workers = ours.start(
        place, engine.url.render_as_string(hide_password=False), home, stack, module=("bench.jumping", str(ahead))
    )
    _let_judge(engine, begin, workers)
    consumer = log.tail(place.kafka, ALERT)
    stack.callback(consumer.close)
    waits: list[float] = []
    for number, moment in enumerate(moments):
        given.tell("due times passed", number, len(moments))
        shift = moment - LEAD_MS - wall_clock()
        jumping.put(ahead, shift)
        waits += _cards(consumer, engine, moment, shift)
        workers.must_live()
    return waits


def _let_judge(engine: sa.Engine, moment: int, workers: ours.Workers) -> None:
    """Return when what was due before ``moment`` is judged and said: it is late by a jump of the clock."""
    deadline = time.monotonic() + LONGEST_S
    while ours.ask(engine, f"{LEFT} {moment}") or ours.ask(engine, UNSENT):
        workers.must_live()
        if time.monotonic() > deadline:
            raise GovbusError(f"what was due before the measurement is not judged after {LONGEST_S:.0f} s")
        time.sleep(0.1)


def _cards(consumer: Any, engine: sa.Engine, moment: int, shift: int) -> Iterator[float]:
    """What came of one moment, until all that was due is judged and nothing more has come for a second."""
    began = calm = time.monotonic()
    while time.monotonic() - calm < 1.0:
        message = consumer.poll(0.1)
        if message is None or message.error():
            if ours.ask(engine, f"{LEFT} {moment}"):
                calm = time.monotonic()
            if time.monotonic() - began > LONGEST_S:
                raise GovbusError(f"a clock was not looked at {LONGEST_S:.0f} s after its due time")
            continue
        alert: Mapping[str, Any] = codec.decode(message.value(), ALERT)
        calm = time.monotonic()
        yield message.timestamp()[1] + shift - float(alert["issued_at"])
