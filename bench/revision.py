"""A calendar is revised under open clocks: how many it concerns, and how long until all of them are re-dated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from typing import Any

import sqlalchemy as sa

from bench import ours
from bench.given import Given
from connectors.intake.calendar import calendar_row
from schemas import codec, envelope
from schemas.errors import GovbusError
from schemas.topics import CALENDAR, CASE
from streams.rules.calendar import day_at
from streams.store.applier import apply_batch, sweep
from streams.store.engine import connect
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried
from streams.store.schedule import ScheduleProjection

RUNS = (("few", 1), ("all", 1), ("all", 2))
"""What is revised, and how many workers re-date."""
STALE = "SELECT count(*) FROM case_state WHERE next_check_at <= 0"
LAST = "SELECT max(counted_to) FROM case_state"
FIRST = "SELECT min(counted_from) FROM case_state"
NEWEST = "SELECT max(watermark) FROM cursor"
PLACE = "SELECT coalesce(max(next_offset), 0) FROM cursor WHERE processor = 'schedule' AND partition = 0"


def figures(url: str, kind: str, given: Given, workers: int) -> dict[str, float]:
    """``revised_<kind>``: clocks concerned; ``…_mark_s``: the transaction that stores the calendar; ``…_s``: all.

    ``workers`` processes, each with its share of the partitions, judge as the lines of so many workers do.
    """
    engine = connect(url)
    received = int(ours.ask(engine, NEWEST)) + 1
    record = _revised(engine, kind, received)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
        list(processes.map(_awake, range(workers)))
        given.tell(f"re-date, {workers} workers", 0, 1)
        began = time.monotonic()
        apply_batch(engine, ScheduleProjection(), [_carried(engine, record)])
        marked, stale = time.monotonic() - began, int(ours.ask(engine, STALE))
        shares = [range(n, CASE.partitions, workers) for n in range(workers)]
        list(processes.map(_redate, [url] * workers, shares, [received] * workers))
    if left := int(ours.ask(engine, STALE)):
        raise GovbusError(f"{left} cases were not re-dated")
    spent = time.monotonic() - began
    engine.dispose()
    name = f"revised_{kind}" + ("" if workers == 1 else f"_by_{workers}")
    return {name: float(stale), f"{name}_mark_s": marked, f"{name}_s": spent}


def _awake(number: int) -> int:
    """Workers have been running long before a calendar is revised: start-up is not measured."""
    time.sleep(0.2)  # so that each process takes one
    return number


def _redate(url: str, partitions: Sequence[int], horizon: int) -> None:
    engine = connect(url)
    sweep(engine, JudgeProjection(), dict.fromkeys(partitions, horizon), lambda _: True)
    engine.dispose()


def _revised(engine: sa.Engine, kind: str, received: int) -> dict[str, Any]:
    """A later revision of a year: with the last day that any clock counts off, or with other hours all year."""
    day = day_at(int(ours.ask(engine, LAST if kind == "few" else FIRST)))
    row = calendar_row(day.year, occurred_at=received, department="HS-XZSPJ", revision=9)
    if kind == "few":
        others = [d for d in row["days"] if d["day"] != day]
        row["days"] = sorted([*others, {"day": day, "working": False, "name": ""}], key=lambda d: d["day"])
    else:
        sessions = [{"opens": 510, "closes": 720}, {"opens": 810, "closes": 1020}]
        row["hours"] = [{"from_on": date(day.year, 1, 1), "to_on": None, "sessions": sessions}]
    row["received_at"] = received
    return {**row, "event_id": str(envelope.event_id(CALENDAR, row))}


def _carried(engine: sa.Engine, record: dict[str, Any]) -> Carried:
    value = codec.encode(CALENDAR, record)
    headers = tuple(envelope.headers(CALENDAR, codec.decode(value, CALENDAR)))
    key = str(record[CALENDAR.key]).encode()
    return Carried(CALENDAR, 0, int(ours.ask(engine, PLACE)), key, value, headers)
