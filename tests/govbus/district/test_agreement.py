"""The simulator and the rules agree on every case, whatever the seed and however much trouble there is; no database."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from typing import Any

import pytest

from govbus.district import cases, oracle
from govbus.district.generator import SPAN, Made, make
from govbus.district.publishing import whole
from schemas import codec
from schemas.topics import CALENDAR, CASE, ITEM, Topic
from streams.rules.calendar import CalendarHistory, Publication
from streams.rules.judge import References, fold
from streams.rules.lifecycle import CaseEvent
from streams.rules.limits import item_versions
from streams.rules.state import CaseState


def records(made: Made, topic: Topic) -> list[dict[str, Any]]:
    """The accepted records of a topic in log order, as a processor decodes them."""
    rows = (r for r in made.district.rows if r.topic is topic and r.outcome == "new")
    return [codec.decode(codec.encode(topic, whole(row)), topic) for row in rows]


@cache
def calendars() -> CalendarHistory:
    """The same in every district."""
    return CalendarHistory(Publication.of(r) for r in records(make(1, 150, 0), CALENDAR))


def references(made: Made) -> References:
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records(made, ITEM):
        items[record["item_code"]].append(record)
    return References(calendars(), {code: item_versions(found) for code, found in items.items()})


def judged(made: Made) -> dict[str, Any]:
    """What the rules make of every case, in the oracle's words."""
    known = references(made)
    told: dict[str, list[CaseEvent]] = defaultdict(list)
    for record in records(made, CASE):
        told[record["case_no"]].append(CaseEvent.of(record["event_id"], record))
    return {no: _words(fold(CaseState(no, ()), events, known, SPAN.end)[0]) for no, events in told.items()}


def _words(state: CaseState) -> dict[str, Any]:
    cards = [a for a in state.alerts if a.kind == "CARD"]
    return {
        "status": state.status,
        "due_at": state.due_at,
        "on_time": state.on_time if state.status in oracle.TIMED else None,
        "cards": sorted(a.colour if a.revoked_at is None else f"{a.colour} revoked" for a in cards),
    }


def differences(made: Made) -> list[str]:
    return list(oracle.differences("cases", oracle.expect(made)["cases"], judged(made)))


@pytest.mark.parametrize("seed", range(1, 13))
def test_rules_and_simulator_agree_on_every_case_of_a_year(seed: int) -> None:
    assert differences(make(seed, 150, 0)) == []


@pytest.mark.parametrize("seed", range(101, 113))
def test_they_agree_when_everything_odd_happens_ten_times_as_often(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def often(rng: random.Random, share: float) -> bool:
        return rng.random() < (min(10 * share, 0.5) if share < 0.5 else share)

    monkeypatch.setattr(cases, "chance", often)
    assert differences(make(seed, 150, 0)) == []


def test_the_seed_whose_longest_case_outlived_the_simulators_clock_is_made() -> None:
    assert len(make(7, 400, 0).district.stories) == 600


def test_cases_go_on_after_a_pause_with_a_step_and_without_and_some_pauses_overlap() -> None:
    stories = [[t.event for t in s.told] for s in make(5, 1_500, 0).district.stories]
    paused = [events for events in stories if "case.special_ended" in events]
    assert any("case.step_completed" in events for events in paused)
    assert any("case.step_completed" not in events for events in paused)
    assert any(events.count("case.special_ended") == 2 for events in paused)
