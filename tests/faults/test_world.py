"""What is broken around the bus, database, network, province and records alike, costs nothing but time, says an oracle
that knows nothing of the product. The long form is `make chaos`.

No wait here is for a length of time: a test fails when nothing at all has moved for two minutes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from govbus.chaos import database, moods, network, poison, province
from govbus.chaos.corpus import DAMAGES, corpus
from govbus.chaos.cycles import Fault, cycles, ended
from govbus.chaos.ground import Ground, scratch
from govbus.chaos.planted import BUGS
from govbus.chaos.stage import stage

CASES, SEED = 250, 21
PAYLOADS = 4 * len(DAMAGES)
SHORT_S = (0.4, 1.2)
CUT = (
    "kafka cut", "kafka refused", "postgresql half open", "postgresql cut towards the client", "province flapping",
)  # fmt: skip
MOODS: tuple[moods.Mood, ...] = ("refuses 503", "answers late", "forges", "leaves records out", "names strangers")


def chosen(bus: Ground, small: bool, wires: network.Wires) -> list[Fault]:
    """A few faults of each kind."""
    cuts = [fault for fault in network.faults(wires) if fault.name in CUT]
    good = partial(moods.tell, bus.home, "good")
    sulks = [Fault(mood, partial(moods.tell, bus.home, mood), good) for mood in MOODS]
    return [replace(fault, seconds=SHORT_S) for fault in (*database.faults(bus, small), *cuts, *sulks)]


@pytest.mark.stack
def test_nothing_is_lost_or_doubled_whatever_breaks_around_the_bus() -> None:
    with (
        scratch() as home, database.disk(home / "postgres") as small,
        network.wired(home, database.SETTINGS) as (bus, wires),
        stage(bus, SEED, CASES, province.PLANTED, network.through(bus, wires)) as made,
    ):  # fmt: skip
        faults = [network.started_into_a_cut(made, wires.kafka), *chosen(bus, small, wires)]
        found = cycles(made, faults, len(faults))
        poison.send(made, list(corpus(SEED, PAYLOADS)))
        verdict = made.finish()
        ends = ended(made)
    assert verdict["shown"] == {}
    assert verdict["clean"], verdict.get("failed")
    assert ends == [], "a process ended where it should have waited"
    assert verdict["ledgers"]["poisoned"] == PAYLOADS
    assert verdict["ledgers"]["published"] == verdict["ledgers"]["carried"] > 1_000
    assert sum(found.by.values()) == len(faults) >= len(CUT) + len(MOODS) + 3


def test_every_lie_of_the_province_is_one_that_a_receipt_shows() -> None:
    assert set(moods.LYING) == set(moods.LIES) < set(moods.PASSING)
    assert moods.UNSEEN not in moods.PASSING


def test_every_part_that_breaks_the_world_has_a_bug_that_it_must_catch() -> None:
    provoked = {word for bug in BUGS.values() for word in bug.provoke if word.startswith("part:")}
    assert provoked == {"part:poison", "part:database", "part:network", "part:province"}
