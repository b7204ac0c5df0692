"""The deterministic simulation: some seeds are clean, seeds that failed once too, and planted bugs are caught."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connectors.local.postgres import Postgres
from govbus.chaos.sim import seeds
from govbus.chaos.sim.planted import PLANTED

pytestmark = pytest.mark.stack
SEEDS = 20
SEEDS_FOR_A_BUG = 30
"""Within so many seeds each of these bugs must be caught."""
CAUGHT = (
    "the relay marks before it sends",
    "a worker's cursor moves before the state",
    "a repeated case event counts again",
    "dead letters have random ids",
)
"""Of ``PLANTED``, those seen caught; the others wait for more seeds or sharper faults."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with seeds.server() as made:
        yield made


def test_nothing_is_lost_doubled_or_wrong_in_some_seeds(server: Postgres) -> None:
    result = seeds.batch(server, "some", 0, SEEDS)
    assert result.failed == {}
    assert result.ran == SEEDS
    assert {"kill", "rebalance", "freeze", "reset", "drop", "repeat"} <= result.happened.keys()


@pytest.mark.parametrize("seed", [s for s in seeds.regressions() if s >= SEEDS])
def test_a_seed_that_once_failed_is_clean(seed: int, server: Postgres) -> None:
    assert seeds.batch(server, f"seed_{seed}", seed, 1).failed == {}


@pytest.mark.parametrize("bug", CAUGHT)
def test_a_planted_bug_is_caught(bug: str, server: Postgres) -> None:
    assert bug in PLANTED
    result = seeds.batch(server, f"bug_{abs(hash(bug))}", 0, SEEDS_FOR_A_BUG, planted=bug)
    assert len(result.failed) == 1, f"{bug}: not caught in {result.ran} seeds"
