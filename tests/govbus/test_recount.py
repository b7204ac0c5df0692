"""The recount's clock against the one that counts every minute, on calendars, units and pauses of all kinds."""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.intake.calendar import calendar_rows
from govbus import recount
from govbus.district.clock import MINUTE

SLOW = Path(__file__).parents[1] / "streams" / "rules" / "slow_clock.py"
ZONE_MINUTES = 8 * 60
OPEN = 2**53
"""A pause that has not ended, as the oracle has it."""


@pytest.fixture(scope="module")
def slow() -> Any:
    """The clock that looks at every minute."""
    spec = importlib.util.spec_from_file_location("slow_clock", SLOW)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["slow_clock"] = module
    spec.loader.exec_module(module)
    return module


def moment(minute: int) -> int:
    return (minute - ZONE_MINUTES) * MINUTE


@pytest.mark.parametrize("seed", range(4))
def test_the_recount_counts_like_the_clock_that_looks_at_every_minute(slow: Any, seed: int) -> None:
    rng = random.Random(seed)
    nation, district = slow.calendars(rng, list(calendar_rows(occurred_at=0, department="HS-XZSPJ")))
    every = slow.Offices(nation, district)
    own = recount.offices({(r["region"], r["year"]): r for r in (*nation, *district)}, "430903")
    judged = 0
    for _ in range(150):
        case = replace(slow.random_case(rng), mode="BUSINESS_MINUTES")
        wanted = slow.answer(every, case)
        pauses = [(moment(s) + rng.randrange(MINUTE), OPEN if e is None else moment(e)) for s, e in case.pauses]
        said = own.deadlines(moment(case.accepted), case.amount + case.extension, pauses, case.unit)
        assert said.provisional == wanted.provisional
        if not wanted.provisional:
            judged += 1
            assert said.due == (None if wanted.due is None else moment(wanted.due)), case
    assert judged > 50
