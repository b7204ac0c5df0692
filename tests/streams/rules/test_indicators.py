"""What of the indicators may be published; expectations typed by hand from DOMAIN §9 (suppress cells below 5)."""

from __future__ import annotations

from datetime import date

import pytest

from streams.rules import cards, indicators
from streams.rules.calendar import day_of
from streams.rules.indicators import Figure


@pytest.mark.parametrize(
    ("key", "numerator", "denominator", "told"),
    [
        ("overdue_rate", 1, 50, False),  # one case is a cell, whatever it is a part of
        ("on_time_rate", 49, 50, False),  # and so is the one that is left
        ("on_time_rate", 45, 50, True),
        ("at_once_rate", 0, 50, True),
        ("at_once_rate", 50, 50, True),
        ("rated_rate", 4, 50, False),
        ("actively_rated_rate", 46, 50, False),
        ("satisfaction", 420, 5, True),  # points are no cells
        ("satisfaction", 320, 4, False),
        ("rectified_rate", 4, 9, False),
        ("called_back_rate", 5, 9, False),
        ("named_called_back_rate", 0, 4, False),
        ("rectified_in_time_rate", 5, 10, True),
        ("early_rate", 0, 0, True),  # nothing is no cell
        ("average_minutes", 3, 50, True),  # minutes are no cells
        ("average_minutes", 50, 51, True),
        ("average_minutes", 900, 4, False),
        ("depth_share", 1, 50, True),  # items are no persons
        ("platform_coverage", 49, 50, True),
        ("platform_coverage", 3, 4, False),
        ("late_service", 4, None, False),
        ("red_cards", 5, None, True),
    ],
)
def test_a_figure_is_published_unless_it_tells_of_one_to_four(
    key: str, numerator: float, denominator: float | None, told: bool
) -> None:
    figure = Figure(numerator, denominator)
    assert indicators.published({key: figure}) == {key: figure if told else Figure(0, None, suppressed=True)}


CLOCKS = {"handling": "承诺", "statutory": "法定", "step": "环节", "delivery": "送达", "group": "项目和联办全程"}


@pytest.mark.parametrize(("key", "yellow"), [("red_cards", False), ("yellow_cards", True)])
def test_the_formula_of_the_cards_names_every_clock_whose_cards_are_counted(key: str, yellow: bool) -> None:
    day = day_of(date(2020, 9, 14))
    named = "、".join(CLOCKS[c] for c in CLOCKS if any((r.colour == "YELLOW") == yellow for r in cards.rules(c, day)))
    assert indicators.indicators()[key].formula == f"发出的{'黄' if yellow else '红'}牌（{named}）减去已撤销的"
