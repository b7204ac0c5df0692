"""Runs seeds, one after the other, on one database, and says what the judge said."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import sqlalchemy as sa

from govbus.chaos.sim import verdict
from govbus.chaos.sim.database import TRUNCATE_EVERY, disconnect, empty
from govbus.chaos.sim.history import small
from govbus.chaos.sim.schedule import Fault
from govbus.chaos.sim.verdict import Case, Found
from govbus.chaos.sim.world import Restless, World

HISTORIES = 300
"""So many different histories; seeds that are equal modulo this number share one."""
COLLECT_EVERY = 100
"""Seeds between two collections of Python's garbage; by itself it would look through everything much too often."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed. ``trace`` names every turn and the database it ended with."""

    seed: int
    complaints: list[str]
    happened: Mapping[str, int] = field(default_factory=dict)
    reached: Mapping[str, int] = field(default_factory=dict)
    killed_after: Mapping[str, int] = field(default_factory=dict)
    trace: str = ""
    turns: int = 0
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "seed": self.seed, "complaints": self.complaints[:20], "trace": self.trace,
            "happened": {kind: count for kind, count in self.happened.items() if count},
            "reached": self.reached, "killed_after": self.killed_after,
        }  # fmt: skip


class Runner:
    """Runs seeds on ``engine``'s database, which is all its own; keeps the calm runs."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._calm: dict[int, Found] = {}
        self._count = 0
        gc.collect()
        gc.freeze()
        gc.disable()

    def expected(self, seed: int) -> Found:
        """The calm run of the seed's history."""
        number = seed % HISTORIES
        if number not in self._calm:
            self._calm[number] = verdict.calm(self._engine, small(number))
        return self._calm[number]

    def one(self, seed: int) -> Outcome:
        """One seed."""
        began = perf_counter()
        history, wanted = small(seed % HISTORIES), self.expected(seed)
        self._clean()
        world = World(seed, history, self._engine)
        complaints = _lived(world)
        found = verdict.look(self._engine)
        if not complaints:
            complaints = verdict.judge(Case(history, world.log, world.province, found, wanted))
            complaints += [f"wrong: {surprise}" for surprise in world.surprises]
        if complaints:
            disconnect(self._engine)
        turns = world.schedule
        turns.trace.update(str(turns.rng.random()).encode())
        trace = f"{turns.trace.hexdigest()} {found.digest}"
        seconds = perf_counter() - began
        return Outcome(
            seed, complaints, turns.happened, turns.reached, world.killed_after, trace, turns.turns, seconds
        )

    def _clean(self) -> None:
        self._count += 1
        empty(self._engine, anew=self._count % TRUNCATE_EVERY == 0)
        if self._count % COLLECT_EVERY == 0:
            gc.collect()


def _lived(world: World) -> list[str]:
    """What kept a world from coming to rest."""
    try:
        world.run()
    except Restless as error:
        return [f"lost: not at rest: {error}"]
    except Fault as error:
        return [f"wrong: {error} ended: {_where(error.__cause__)}"]
    return []


def _where(error: BaseException | None) -> str:
    """The innermost frames of an exception and its type; no values."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)[-4:]
    places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__} at {places}"
