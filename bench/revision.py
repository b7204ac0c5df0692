"""A calendar is revised under open clocks: how many it concerns, and how long until all of them are re-dated."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import sqlalchemy as sa

from bench import ours
from bench.given import Given
from connectors.intake.calendar import calendar_row
from schemas import codec, envelope
from schemas.errors import GovbusError
from schemas.topics import CALENDAR, CASE
from streams.rules.calendar import DAY_MINUTES, date_of, minute_of
from streams.store.applier import apply_batch, sweep
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried
from streams.store.schedule import ScheduleProjection

KINDS = ("few", "all")
STALE = "SELECT count(*) FROM case_state WHERE next_check_at <= 0"
LAST = "SELECT max(counted_to) FROM case_state"
FIRST = "SELECT min(counted_from) FROM case_state"
NEWEST = "SELECT max(watermark) FROM cursor"
PLACE = "SELECT coalesce(max(next_offset), 0) FROM cursor WHERE processor = 'schedule' AND partition = 0"


def figures(engine: sa.Engine, kind: str, given: Given) -> dict[str, float]:
    """``revised_<kind>``: clocks concerned; ``…_mark_s``: the transaction that stores the calendar; ``…_s``: all."""
    received = int(ours.ask(engine, NEWEST)) + 1
    record = _revised(engine, kind, received)
    began = time.monotonic()
    apply_batch(engine, ScheduleProjection(), [_carried(engine, record)])
    marked, stale = time.monotonic() - began, int(ours.ask(engine, STALE))
    _sweep(engine, received, given)
    if left := int(ours.ask(engine, STALE)):
        raise GovbusError(f"{left} cases were not re-dated")
    name = f"revised_{kind}"
    return {name: float(stale), f"{name}_mark_s": marked, f"{name}_s": time.monotonic() - began}


def _sweep(engine: sa.Engine, horizon: int, given: Given) -> None:
    def told(left: int) -> bool:
        given.tell("re-date: partitions done", CASE.partitions - left, CASE.partitions)
        return True

    sweep(engine, JudgeProjection(), dict.fromkeys(range(CASE.partitions), horizon), told)


def _revised(engine: sa.Engine, kind: str, received: int) -> dict[str, Any]:
    """A later revision of a year: with the last day that any clock counts off, or with other hours all year."""
    day = date_of(minute_of(int(ours.ask(engine, LAST if kind == "few" else FIRST))) // DAY_MINUTES)
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
