"""``govbus bench cases``: events of simulated cases through the state machine and the clocks, beside Kafka Streams with
exactly_once_v2 on its simpler work (it only counts the same records).
"""

from __future__ import annotations

from typing import Any

from bench import clones, limits, load, ours
from bench.contest import Contest
from bench.given import Given
from bench.known import known
from bench.measure import Figures, Target, report
from bench.ours import Work
from bench.peers import table
from bench.peers.protocol import Task
from bench.stand import Stand, stand
from schemas.errors import GovbusError
from schemas.topics import CASE
from streams.store.engine import connect
from streams.store.tables import case_event

FIELDS = ("department", "item_code", "channel_code", "event_type")
LIMIT_EVENTS = 100_000
UNSETTLED = (
    "SELECT EXISTS (SELECT FROM case_state "
    "WHERE next_check_at <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
)
"""The simulated year is over, so every clock that still runs is due: ``rate_settled`` ends when all are judged."""
TARGETS = (Target("cases >= 1 x Kafka Streams exactly_once_v2 counting", least=1.0, peer=table.EXACTLY_ONCE),)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds over about ``given.events`` events of cases."""
    templates = clones.case_templates()
    count = clones.copies(templates, given.events) * len(templates)
    with stand() as place, known(place, given) as template:
        for done in load.pour(place.kafka, CASE, clones.messages(templates, given.events)):
            given.tell("fill Kafka", done, count)
        contest = Contest(
            place,
            given,
            Task(CASE, FIELDS, count),
            table.named(table.EXACTLY_ONCE),
            lambda number: (*_ours(place, given, count, template, number), None),
            lambda: limits.measure(place.kafka, CASE, min(count, LIMIT_EVENTS)),
        )
        return report("cases", contest.rounds(), TARGETS, events=count, workers=1)


def verify(engine: Any, count: int) -> None:
    """Raise unless SQL holds ``count`` events of cases and no dead letter."""
    events = ours.ask(engine, "SELECT count(*) FROM case_event")
    dead = ours.ask(engine, "SELECT count(*) FROM dead_letter")
    if events != count or dead:
        raise GovbusError(f"{count} events of cases gave {events} in SQL and {dead} dead letters")


def _ours(place: Stand, given: Given, count: int, template: str, number: int) -> tuple[Figures, Figures]:
    work = Work((CASE,), count, lambda engine: verify(engine, count), UNSETTLED)
    with place.database(template) as url, place.directory(f"ours-{number}") as home:
        found = ours.measure(place, url, work, home, lambda n: given.tell("ours", n, count))
        engine = connect(url)
        for name in ("case_state", "card"):
            found[name] = float(ours.ask(engine, f"SELECT count(*) FROM {name}"))
        copied = limits.copy(engine, case_event, min(count, LIMIT_EVENTS))
        engine.dispose()
    return found, copied
