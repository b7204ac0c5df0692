"""The simulated district is the same from the same seed, and contains every kind of fault it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from govbus.district import faults, oracle
from govbus.district.clock import REVISED, at
from govbus.district.generator import Made, make
from govbus.district.model import REGIONS

PROBE = "import sys, govbus.district.oracle; print('streams.rules.judge' in sys.modules)"
SOURCE = Path(oracle.__file__).parent


@pytest.fixture(scope="module")
def made() -> Made:
    """A small district."""
    return make(seed=3, count=60, live=10)


def test_the_same_seed_gives_the_same_rows_and_another_seed_does_not(made: Made) -> None:
    assert make(seed=3, count=60, live=10).district.rows == made.district.rows
    assert make(seed=4, count=60, live=10).district.rows != made.district.rows


def test_rows_come_in_the_order_in_which_the_bus_hears_of_them_and_from_every_region(made: Made) -> None:
    heard = [row.received_at for row in made.district.rows]
    assert heard == sorted(heard)
    assert {row.region for row in made.district.rows} == set(REGIONS)


def test_every_kind_of_fault_and_poison_occurs(made: Made) -> None:
    reasons = set(oracle.expect(made)["dead"])
    assert reasons == {reason for _, reason, _ in faults.SPOILERS} | set(faults.POISONS) | {"conflict"}


def test_the_oracle_loads_nothing_of_the_rules_it_judges() -> None:
    text = (SOURCE / "oracle.py").read_text() + (SOURCE / "clock.py").read_text()
    assert "from streams" not in text
    assert "import streams" not in text
    loaded = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("accepted", "days", "due", "yellow"),
    [
        ((2020, 9, 25, 16, 50), 0.5, (2020, 9, 27, 13, 20), (2020, 9, 27, 11, 38)),
        ((2020, 9, 30, 10, 0), 5, (2020, 10, 14, 17, 0), (2020, 10, 13, 17, 0)),
        ((2025, 3, 3, 9, 30), 20, (2025, 3, 31, 17, 0), (2025, 3, 25, 17, 0)),
    ],
)
def test_the_simulators_clock_gives_the_worked_results_of_the_domain(
    accepted: tuple[int, ...], days: float, due: tuple[int, ...], yellow: tuple[int, ...]
) -> None:
    found = REVISED.deadlines(_ms(accepted), days)
    assert (found.due, found.yellow) == (_ms(due), _ms(yellow))


def _ms(parts: tuple[int, ...]) -> int:
    from datetime import date

    year, month, day, hour, minute = parts
    return at(date(year, month, day), hour * 60 + minute)
