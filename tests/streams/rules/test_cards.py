"""The rule table of cards: one rule for each clock and colour, by the version in force when the clock began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest

from streams.rules import cards
from streams.rules.calendar import day_of
from streams.rules.cards import Alert, CardRule
from streams.rules.clock import Warning


@pytest.fixture
def two_versions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From 2021 on the handling clock warns at nine tenths."""
    first = CardRule("handling", True, "YELLOW", "HS-CARD-Y", "1", day_of(date(2004, 1, 1)), Warning(80, 1))
    second = replace(first, rule_version="2", effective=day_of(date(2021, 1, 1)), warning=Warning(90, 0))
    monkeypatch.setattr(cards, "_rules", lambda: (second, first))
    _forget()
    yield
    _forget()


def _forget() -> None:
    for kept in (cards._versions, cards.clock_of):
        kept.cache_clear()


@pytest.mark.usefixtures("two_versions")
def test_a_rule_counts_from_the_day_it_takes_effect_and_before_its_first_day_the_first() -> None:
    days = [day_of(date(1999, 1, 1)), day_of(date(2020, 12, 31)), day_of(date(2021, 1, 1))]
    assert [[r.rule_version for r in cards.rules("handling", day)] for day in days] == [["1"], ["1"], ["2"]]
    assert cards.warning("handling", days[2]) == Warning(90, 0)


@pytest.mark.parametrize(
    ("clock", "rules"),
    [
        ("handling", {"YELLOW": "HS-CARD-Y", "RED": "HS-CARD-R"}),
        ("statutory", {"RED_STATUTORY": "HS-CARD-RS"}),
        ("step", {"YELLOW": "HS-CARD-STEP"}),
        ("delivery", {"YELLOW": "HS-CARD-DELIVERY-Y", "RED": "HS-CARD-DELIVERY-R"}),
        ("group", {"YELLOW": "HS-CARD-GROUP-Y", "RED": "HS-CARD-GROUP-R"}),
    ],
)
def test_every_clock_has_its_own_rules(clock: str, rules: dict[str, str]) -> None:
    assert {r.colour: r.rule_id for r in cards.rules(clock, day_of(date(2020, 10, 12)))} == rules


def test_every_rule_has_a_sentence_that_a_supervisor_can_read() -> None:
    for clock in ("handling", "statutory", "step", "delivery", "group"):
        for rule in cards.rules(clock, 20_000):
            alert = Alert("id", 1, "CARD", rule.colour, rule.rule_id, "1", "审核", 0, "2020-r1", True, (), 0)
            text = cards.summary("C-1", alert, "2020-10-19 17:00", "")
            assert text.startswith(("黄牌", "红牌"))
            assert text.endswith("（日历未公布，期限为暂定）")
