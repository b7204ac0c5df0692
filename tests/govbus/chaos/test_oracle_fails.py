"""An oracle that failed has judged nothing: no part is well by it, and no planted bug is caught by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from govbus.chaos import bites, frailties, rig, soak
from govbus.chaos.planted import BUGS, SOUND
from govbus.chaos.rounds import UNJUDGED
from govbus.chaos.watch import Stalled
from streams.store import failpoints


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus on which all goes well until its oracle is asked."""
    failed = {"clean": False, "failed": "Traceback ... MemoryError", "counts": {}, "shown": {}, "ledgers": {}}
    fleet = SimpleNamespace(names=["relay"], deaths=[])
    made = SimpleNamespace(rows=10**9, fleet=fleet, watch=SimpleNamespace(patience=0), ends=[], finish=lambda: failed)

    @contextlib.contextmanager
    def instead(*_: Any, **__: Any) -> Iterator[Any]:
        yield made

    for module in (soak, bites):
        monkeypatch.setattr(module, "ground", instead)
        monkeypatch.setattr(module, "stage", instead)


@pytest.mark.usefixtures("broken")
def test_a_soak_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = [soak.Sample(10.0 * at, 100.0, 0.0, 10) for at in range(361)]
    monkeypatch.setattr(soak, "carried", lambda _: 100.0)
    monkeypatch.setattr(soak, "sample", lambda *given: given[-1]["relay"].extend(flat))
    monkeypatch.setattr(soak, "ended", lambda _: [])
    found = soak.run(60, 1, lambda *_: None)
    assert (found["clean"], found["met"]) == (False, False)
    assert UNJUDGED in found["faults"][0]


@pytest.mark.usefixtures("broken")
def test_a_bug_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bites, "_provoke", lambda *_: None)
    assert not bites.bite(Path(), "poison-skipped", 1).caught


@pytest.mark.usefixtures("broken")
def test_a_bug_of_a_whole_part_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(n for n, bug in BUGS.items() if any(word.startswith("part:") for word in bug.provoke))
    monkeypatch.setattr(frailties, "found", lambda *_: [f"seed 1: {UNJUDGED}: Traceback"])
    assert not bites.bite(Path(), name, 1).caught
    monkeypatch.setattr(frailties, "found", lambda *_: ["seed 1: lost: e"])
    assert bites.bite(Path(), name, 1).caught


@pytest.mark.parametrize(
    ("name", "caught"), [("poison-skipped", False), ("lost-log-unnoticed", True), ("nothing, halt", True)]
)
def test_a_rig_that_stalls_has_caught_only_what_is_said_to_stall(
    monkeypatch: pytest.MonkeyPatch, name: str, caught: bool
) -> None:
    def stall() -> None:
        raise Stalled("nothing moves")

    made = SimpleNamespace(finish=stall, watch=SimpleNamespace(patience=0))
    for what in ("ground", "stage"):
        monkeypatch.setattr(bites, what, lambda *_: contextlib.nullcontext(made))
    monkeypatch.setattr(bites, "_provoke", lambda *_: None)
    found = bites.bite(Path(), name, 1)
    assert (found.caught, found.how) == (caught, "stalled: nothing moves")


def test_a_part_that_stalls_has_caught_only_what_is_said_to_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frailties, "found", lambda *_: ["seed 1: stalled: no end after 900 s"])
    assert not bites.bite(Path(), "delivery-errors-unread", 1).caught
    assert bites.bite(Path(), "decode-errors-escape", 1).caught


def test_what_shows_a_fault_without_a_bug_makes_the_bugs_that_it_caught_worth_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    falsely: list[str] = []

    def bitten(name: str, _: int) -> bites.Bite:
        return bites.Bite(name, name in BUGS or name in falsely, "how")

    pool = SimpleNamespace(map=map)
    monkeypatch.setattr(rig, "ProcessPoolExecutor", lambda *_, **__: contextlib.nullcontext(pool))
    monkeypatch.setattr(rig, "bitten", bitten)
    for well in (True, False):
        found = rig.planted(len(BUGS), 1, lambda *_: None)
        assert (found["caught"], found["without_a_bug"]) == (len(BUGS), len(SOUND))
        assert (found["clean"], found["met"]) == (well, well)
        falsely.append("nothing, halt")
    assert found["wrong"] == ["nothing, halt: how"]


def test_kills_that_never_came_to_a_failpoint_do_not_meet_the_target_that_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = {"clean": True, "by": {"kill": 1_000}, "recovery_s": {"p95": 1.0}}
    monkeypatch.setattr(rig, "rounds", lambda *_, **__: figures)
    assert not rig.killed(1_000, 1, lambda *_: None)["met"]
    monkeypatch.setitem(figures, "by", dict.fromkeys(failpoints.NAMES, 15))
    assert not rig.killed(1_000, 1, lambda *_: None)["met"], "each must have been reached twenty times"
    assert rig.killed(750, 1, lambda *_: None)["met"]
    monkeypatch.setitem(figures, "by", dict.fromkeys(failpoints.NAMES, 20))
    assert rig.killed(1_000, 1, lambda *_: None)["met"]
