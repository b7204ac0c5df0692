"""``govbus bench timers``: the sweep over open clocks: what it costs while nothing is due, how fast all of them are
judged once they are, how long a revised calendar takes to re-date them, and how long after a due time its card is out.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from bench import cases, clones, load, ours, punctual, revision
from bench.given import Given
from bench.known import known
from bench.measure import Round, Target, percentile, report
from bench.ours import Work
from bench.stand import Stand, stand
from schemas.clock import wall_clock
from schemas.errors import GovbusError
from schemas.topics import CASE
from streams.store.applier import sweep
from streams.store.engine import connect
from streams.store.judge import JudgeProjection

CLOCKS = "clocks"
LOOKS = 100
TARGETS = (
    Target("p99 from a due time to its card on the topic under 1 s", figure="punctual_p99_ms", most=1_000),
    Target("two workers re-date a million open clocks in under 60 s", figure="revised_all_by_2_s", most=60,
           events=1_000_000),
)
OPEN = "SELECT count(*) FROM case_state WHERE next_check_at IS NOT NULL"
FIRST_DUE = "SELECT min(next_check_at) FROM case_state"
DUE = (
    "SELECT count(*) FROM case_state "
    "WHERE next_check_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
)


def run(given: Given) -> dict[str, Any]:
    """The report over about ``given.events`` cases that are accepted and not decided (two events each).

    ``quiet_ms_*``: one look while no clock is due. ``rate``: cases a second once all are due, years later by the wall
    clock, judged as a worker's line judges them but in this process. ``revised_few``, ``revised_all``: clocks that
    a revised calendar concerns, by one late day or by all of the year; ``…_s``: until the last of them is re-dated, by
    one process; ``revised_all_by_2…``: by two, as two workers share the partitions. ``punctual_…``: see
    ``bench.punctual``, there worker and relay are processes of their own.
    Limit: one UPDATE of the same rows.
    """
    with stand() as place, known(place, given) as template, place.database(template, CLOCKS) as url:
        count = _open_clocks(place, url, given)
        probes = punctual.pour(place, given)
        rounds = [_round(place, given, count, probes, number) for number in range(given.rounds)]
        return report("timers", rounds, TARGETS, events=count, workers=1)


def _open_clocks(place: Stand, url: str, given: Given) -> int:
    """Let a worker accept about ``given.events`` cases; its time is that of the events, so no clock becomes due. How
    many there are.
    """
    templates = clones.open_case_templates()
    events = clones.copies(templates, 2 * given.events) * len(templates)
    count = events // 2
    for done in load.pour(place.kafka, CASE, clones.messages(templates, events)):
        given.tell("fill Kafka", done, events)
    work = Work((CASE,), 2 * count, lambda engine: _verify(engine, count), "", ("--clock", "watermark"))
    with place.directory("open") as home:
        ours.measure(place, url, work, home, lambda n: given.tell("open clocks", n, 2 * count))
    return count


def _verify(engine: sa.Engine, count: int) -> None:
    cases.verify(engine, 2 * count)
    if (found := ours.ask(engine, OPEN)) != count:
        raise GovbusError(f"{count} accepted cases gave {found} open clocks")


def _round(place: Stand, given: Given, count: int, probes: int, number: int) -> Round:
    with place.database(CLOCKS, f"sweep_{number}") as url:
        engine = connect(url)
        figures = {"clocks": float(count), **_quiet(engine, given), **_sweep(engine, given, count)}
        engine.dispose()
    for kind, workers in revision.RUNS:
        with place.database(CLOCKS, f"revised_{kind}_{workers}_{number}") as url:
            figures |= revision.figures(url, kind, given, workers)
    with place.database(CLOCKS, f"punctual_{number}") as url, place.directory(f"punctual_{number}") as home:
        figures |= punctual.figures(place, given, url, home, probes)
    with place.database(CLOCKS, f"update_{number}") as url:
        engine = connect(url)
        updated = _updated(engine, count)
        engine.dispose()
    return Round(figures, limits={"update": updated})


def _quiet(engine: sa.Engine, given: Given) -> dict[str, float]:
    """How long the worker's look takes at a moment when nothing is due."""
    projection, before = JudgeProjection(), int(ours.ask(engine, FIRST_DUE)) - 1
    spans = []
    for look in range(LOOKS):
        given.tell("look while nothing is due", look, LOOKS)
        began = time.monotonic()
        with engine.connect() as tx:
            due = projection.due(tx, before)
        spans.append(1000 * (time.monotonic() - began))
        if due:
            raise GovbusError(f"{len(due)} partitions have something due before the first clock is")
    return {"quiet_ms_p50": percentile(spans, 0.5), "quiet_ms_p99": percentile(spans, 0.99)}


def _sweep(engine: sa.Engine, given: Given, count: int) -> dict[str, float]:
    """Judge all cases, all due by now, as a worker's line does; how many cards that makes."""
    passes = [time.monotonic()]

    def told(left: int) -> bool:
        given.tell("sweep: partitions done", CASE.partitions - left, CASE.partitions)
        passes.append(time.monotonic())
        return True

    sweep(engine, JudgeProjection(), dict.fromkeys(range(CASE.partitions), wall_clock()), told)
    passes.append(time.monotonic())
    longest, seconds = max(after - before for before, after in pairwise(passes)), passes[-1] - passes[0]
    if left := int(ours.ask(engine, DUE)):
        raise GovbusError(f"the sweep left {left} cases due")
    cards = float(ours.ask(engine, "SELECT count(*) FROM card"))
    return {"rate": count / seconds, "longest_transaction_s": longest, "cards": cards}


def _updated(engine: sa.Engine, count: int) -> float:
    began = time.monotonic()
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE case_state SET next_check_at = NULL"))
    return count / (time.monotonic() - began)
