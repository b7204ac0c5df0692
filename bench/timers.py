"""``govbus bench timers``: the sweep over open clocks: what it costs while nothing is due, and how fast all of them are
judged once they are.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa

from bench import cases, clones, load, ours
from bench.given import Given
from bench.known import known
from bench.measure import Round, percentile, report
from bench.ours import Work
from bench.stand import Stand, stand
from schemas.errors import GovbusError
from schemas.topics import CASE
from streams.store.applier import tick_all
from streams.store.engine import connect
from streams.store.judge import JudgeProjection

CLOCKS = "clocks"
TICKS = 40
OPEN = "SELECT count(*) FROM case_state WHERE next_check_at IS NOT NULL"
FIRST_DUE = "SELECT min(next_check_at) FROM case_state"
DUE = (
    "SELECT count(*) FROM case_state "
    "WHERE next_check_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
)


def run(given: Given) -> dict[str, Any]:
    """The report over about ``given.events`` cases that are accepted and not decided (two events each).

    ``quiet_ms_*``: one look at all partitions while no clock is due. ``rate``: cases a second once all are due (years
    later by the wall clock), from the first judged to the last. Limit: one UPDATE of the same rows.
    """
    templates = clones.open_case_templates()
    events = clones.copies(templates, 2 * given.events) * len(templates)
    count = events // 2
    with stand() as place, known(place, given) as template:
        for done in load.pour(place.kafka, CASE, clones.messages(templates, events)):
            given.tell("fill Kafka", done, events)
        with place.database(template, CLOCKS) as url:
            _open(place, url, given, count)
            rounds = [_round(place, given, count, number) for number in range(given.rounds)]
        return report("timers", rounds, events=count, workers=1)


def _open(place: Stand, url: str, given: Given, count: int) -> None:
    """Let a worker accept the cases; its time is that of the events, so no clock becomes due."""
    work = Work((CASE,), 2 * count, lambda engine: _verify(engine, count), "", ("--clock", "watermark"))
    with place.directory("open") as home:
        ours.measure(place, url, work, home, lambda n: given.tell("open clocks", n, 2 * count))


def _verify(engine: sa.Engine, count: int) -> None:
    cases.verify(engine, 2 * count)
    if (found := ours.ask(engine, OPEN)) != count:
        raise GovbusError(f"{count} accepted cases gave {found} open clocks")


def _round(place: Stand, given: Given, count: int, number: int) -> Round:
    with place.database(CLOCKS) as url, place.directory(f"timers-{number}") as home:
        engine = connect(url)
        figures = {"clocks": float(count), **_quiet(engine, given), **_sweep(place, url, engine, given, count, home)}
        engine.dispose()
    with place.database(CLOCKS) as url:
        engine = connect(url)
        updated = _updated(engine, count)
        engine.dispose()
    return Round(figures, limits={"update": updated})


def _quiet(engine: sa.Engine, given: Given) -> dict[str, float]:
    """How long a look takes at a moment when nothing is due."""
    projection, before = JudgeProjection(), int(ours.ask(engine, FIRST_DUE)) - 1
    spans = []
    for tick in range(TICKS):
        given.tell("look while nothing is due", tick, TICKS)
        began = time.monotonic()
        tick_all(engine, projection, dict.fromkeys(range(CASE.partitions), before))
        spans.append(1000 * (time.monotonic() - began))
    return {"quiet_ms_p50": percentile(spans, 0.5), "quiet_ms_p99": percentile(spans, 0.99)}


def _sweep(place: Stand, url: str, engine: sa.Engine, given: Given, count: int, home: Any) -> dict[str, float]:
    """Start a worker by the wall clock: all is due. How fast it judges, and how many cards that makes."""
    with ExitStack() as stack:
        workers = ours.start(place, url, home, stack)
        first, had = _until(engine, workers, given, count, count - 1)
        last, left = _until(engine, workers, given, count, 0)
    judged = had - left or count
    return {"rate": judged / max(last - first, 1e-3), "cards": float(ours.ask(engine, "SELECT count(*) FROM card"))}


def _until(engine: sa.Engine, workers: ours.Workers, given: Given, count: int, wanted: int) -> tuple[float, int]:
    """When at most ``wanted`` cases are due, and how many then."""
    while (due := int(ours.ask(engine, DUE))) > wanted:
        given.tell("sweep", count - due, count)
        workers.must_live()
        time.sleep(0.05)
    return time.monotonic(), due


def _updated(engine: sa.Engine, count: int) -> float:
    began = time.monotonic()
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE case_state SET next_check_at = NULL"))
    return count / (time.monotonic() - began)
