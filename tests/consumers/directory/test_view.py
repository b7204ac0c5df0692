"""The directory view: newest version stands, words rank, freshness is what it is when read."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from consumers.directory.view import DAY_MS, View, freshness, search
from schemas.topics import ENTRY
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


@pytest.mark.parametrize(
    ("days", "state"), [(-1, "FRESH"), (0, "DUE"), (2.9, "DUE"), (3.1, "STALE"), (30, "BROKEN")]
)
def test_freshness_follows_the_clock_of_the_reader(days: float, state: str) -> None:
    entry = {"expected_next_at": NOW, "last_update_at": NOW - 30 * DAY_MS, "broken_at": NOW + 30 * DAY_MS}
    assert freshness(entry, NOW + int(days * DAY_MS)) == state
