"""The deterministic simulation: some seeds are clean, a seed repeats exactly, and every planted bug is caught."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.local.postgres import Postgres
from govbus.chaos import rig
from govbus.chaos.sim import seeds
from govbus.chaos.sim.kinds import KINDS
from govbus.chaos.sim.planted import BUGS, UNSEEDED
from govbus.chaos.sim.seeds import Line, Result, simulated
from govbus.cli import build

pytestmark = pytest.mark.stack
SEEDS = 12
REPEATED = 5
MANY, BATCH = 120, 20
CAUGHT: Mapping[str, int] = {
    "the relay marks before it sends": 1,
    "a consumer's cursor moves before its effect": 16,
    "a worker's cursor moves before the state": 5,
    "a repeated case event counts again": 1,
    "gaps are not refused": 6,
    "a chunk forgets where reading began": 5,
    "dead letters have random ids": 2,
    "the push forgets a batch when it is formed": 33,
    "an appeal's decision does not follow its alert to subscribers": 19,
    "the desk is not told that something changed": 1,
}
"""A seed that catches each bug (docs/simulation.md: how many seeds it takes on average)."""
MISTAKE = re.compile("ended: (Type|Attribute|Name)Error")
Lines = dict[str, dict[int, list[Line]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with seeds.server() as made:
        yield made


@pytest.fixture(scope="module")
def lines(server: Postgres) -> Lines:
    """Everything that is looked at here, run in one process; by planted bug and seed."""
    sound = dict.fromkeys((*range(SEEDS), *seeds.regressions(), *CAUGHT.values()))
    work = [(seed, "nothing") for seed in (*sound, REPEATED)]
    work += [(seed, bug) for bug, seed in CAUGHT.items()] + 2 * [(REPEATED, UNSEEDED)]
    found: Lines = {}
    for line in seeds.batch(server, "lines", work):
        found.setdefault(line["planted"], {}).setdefault(line["seed"], []).append(line)
    return found


def test_nothing_is_lost_doubled_or_wrong_in_some_seeds_and_in_those_that_once_failed(lines: Lines) -> None:
    ran = {seed: line["complaints"] for seed, (line, *_) in lines["nothing"].items()}
    assert ran == {seed: [] for seed in {*range(SEEDS), *seeds.regressions(), *CAUGHT.values()}}


def test_a_seed_repeats_exactly_whatever_ran_before_it(lines: Lines, server: Postgres) -> None:
    first, *again = lines["nothing"][REPEATED]
    (alone,) = seeds.batch(server, "alone", [(REPEATED, "nothing")])
    assert len(again) == 1
    assert [line["trace"] for line in (*again, alone)] == [first["trace"]] * 2


def test_a_choice_that_nobody_seeded_is_seen_in_the_trace(lines: Lines) -> None:
    assert len({line["trace"] for line in lines[UNSEEDED][REPEATED]}) == 2


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str, lines: Lines, server: Postgres) -> None:
    (line,) = lines[bug][CAUGHT[bug]]
    assert line["complaints"] != [] or _another_seed(bug, server) is not None
    assert [text for text in line["complaints"] if MISTAKE.search(text)] == []  # of the plant's own, not of the judge


def _another_seed(bug: str, server: Postgres) -> int | None:
    """A change of govbus makes every world another one: then the first seed of many that catches the bug."""
    for first in range(0, MANY, BATCH):
        found = seeds.batch(server, f"other_{first}", [(seed, bug) for seed in range(first, first + BATCH)])
        caught = [line["seed"] for line in found if line["complaints"] and not MISTAKE.search(str(line["complaints"]))]
        sound = seeds.batch(server, f"sound_{first}", [(seed, "nothing") for seed in caught[:1]])
        if caught and not sound[0]["complaints"]:
            warnings.warn(f"{bug!r} is caught by seed {caught[0]} now: write it into CAUGHT", stacklevel=2)
            return int(caught[0])
    return None


def test_a_failing_seed_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = "dead letters have random ids"
    seed = CAUGHT[bug]
    sick = replace(rig.PARTS["seeds"], run=partial(simulated, planted=bug))
    monkeypatch.setattr(rig, "PARTS", {**rig.PARTS, "seeds": sick})
    found = _run(f"govbus chaos --seeds 2 --first-seed {seed - 1} --json")
    assert f"govbus chaos --seeds 1 --first-seed {seed}" in found["again"]
    again = _run(f"govbus chaos --seeds 1 --first-seed {seed} --json")
    told = [text for text in found["faults"] if text.startswith(f"seed {seed}: ")]
    assert again["faults"] == told != []


def _run(command: str) -> dict[str, Any]:
    """What a failing run of ``command`` says about its seeds."""
    result = CliRunner().invoke(build(), shlex.split(command)[1:])
    assert result.exit_code == 1
    found: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return found["seeds"]


def test_a_seed_that_once_failed_stays_with_a_word_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "regressions.txt"
    kept.write_text("# what this is\n4711  an alert was said twice\n\n13  lost\n")
    monkeypatch.setattr(seeds, "REGRESSIONS", kept)
    assert seeds.regressions() == [4711, 13]


def test_a_kind_of_fault_that_many_seeds_never_draw_is_named() -> None:
    result = Result()
    for seed in range(2):
        result.hear({"seed": seed, "complaints": [], "happened": dict.fromkeys(KINDS[1:], 1), "trace": str(seed)})
    assert result.never_drawn == [KINDS[0]]
    assert result.per_100("happened") == {KINDS[0]: 0.0, **dict.fromkeys(KINDS[1:], 100.0)}
