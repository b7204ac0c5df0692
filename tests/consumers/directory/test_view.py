"""The directory view: newest version stands, words rank, freshness is what it is when read."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from consumers.directory.view import View, freshness, search
from schemas.topics import ENTRY
from streams.rules import catalogue
from streams.store.projection import Carried, Event

pytestmark = pytest.mark.stack
NOW = 1_602_228_000_000


def event(code: str, version: int, title: str, **changes: Any) -> Event:
    record = {
        "resource_code": code, "entry_version": version, "department": "HS-ZRZYJ", "title": title,
        "summary": "", "items": [], "share_type_code": "1", "share_condition": "", "withdrawn": False,
        "disputed": False, "expected_next_at": None, "last_update_at": None, "broken_at": None, **changes,
    }  # fmt: skip
    return Event(Carried(ENTRY, 0, 0, b"", b"", ()), uuid.uuid4(), uuid.uuid4(), record)


def titles(engine: sa.Engine, *words: str, **filters: str) -> list[str]:
    with engine.connect() as tx:
        return [str(h.entry["title"]) for h in search(tx, words, NOW, **filters)]


def test_an_older_version_never_overwrites_a_newer_one(engine: sa.Engine) -> None:
    for events in ([event("306012/1", 2, "新"), event("306012/1", 1, "旧")], [event("306012/1", 1, "更旧")]):
        with engine.begin() as tx:
            View().apply(tx, events)
    assert titles(engine) == ["新"]


def test_a_word_in_the_title_ranks_above_summary_above_items_and_withdrawn_is_not_found(
    engine: sa.Engine,
) -> None:
    with engine.begin() as tx:
        View().apply(tx, [
            event("1", 1, "甲", items=[{"name": "不动产权证号", "data_type": "text"}]),
            event("2", 1, "乙", summary="全区不动产登记信息"),
            event("3", 1, "不动产登记簿", share_type_code="2"),
            event("4", 1, "不动产旧目录", withdrawn=True),
            event("5", 1, "100%覆盖"),
        ])  # fmt: skip
    assert titles(engine, "不动产") == ["不动产登记簿", "乙", "甲"]
    assert titles(engine, "不动产", "登记簿") == ["不动产登记簿"]
    assert titles(engine, "不动产", share_type="2") == ["不动产登记簿"]
    assert titles(engine, "0%") == ["100%覆盖"]
    assert titles(engine, "%") == ["100%覆盖"]


@pytest.mark.parametrize("sign", ["%", "_", "\\", "/", "'"])
def test_no_sign_of_a_word_stands_for_another(engine: sa.Engine, sign: str) -> None:
    with engine.begin() as tx:
        View().apply(tx, [event("1", 1, f"甲{sign}乙"), event("2", 1, "甲丙乙"), event("3", 1, "甲乙")])
    assert titles(engine, f"甲{sign}乙") == titles(engine, sign) == [f"甲{sign}乙"]


@pytest.mark.parametrize(
    ("cycle", "minutes", "state"),
    [
        ("DAILY", 1439, "FRESH"), ("DAILY", 1440, "DUE"), ("DAILY", 2879, "DUE"), ("DAILY", 2880, "STALE"),
        ("DAILY", 4319, "STALE"), ("DAILY", 4320, "BROKEN"),
        ("REALTIME", 14, "FRESH"), ("REALTIME", 15, "STALE"), ("REALTIME", 29, "STALE"), ("REALTIME", 30, "BROKEN"),
        # of a month of 31 days the grace is 3.1
        ("MONTHLY", 44_639, "FRESH"), ("MONTHLY", 44_640, "DUE"), ("MONTHLY", 49_103, "DUE"),
        ("MONTHLY", 49_104, "STALE"), ("MONTHLY", 93_743, "STALE"), ("MONTHLY", 93_744, "BROKEN"),
        ("IRREGULAR", 10_000_000, "FRESH"), ("", 10_000_000, "FRESH"),
    ],
)  # fmt: skip
def test_an_entry_is_fresh_for_a_cycle_due_for_its_grace_then_stale_and_broken_after_two(
    cycle: str, minutes: int, state: str
) -> None:
    expected, broken = catalogue.due(cycle, NOW)
    entry = {"last_update_at": NOW, "expected_next_at": expected, "broken_at": broken}
    assert freshness(entry, NOW + minutes * 60_000) == state


def test_an_entry_of_which_no_update_is_known_is_fresh() -> None:
    assert freshness(dict.fromkeys(("last_update_at", "expected_next_at", "broken_at")), NOW) == "FRESH"
