"""Runs seeds, one after the other, on one database, and says what the judge said."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import sqlalchemy as sa

from govbus.chaos.sim import verdict
from govbus.chaos.sim.database import TRUNCATE_EVERY, empty
from govbus.chaos.sim.history import small
from govbus.chaos.sim.schedule import Fault
from govbus.chaos.sim.verdict import Case, Found
from govbus.chaos.sim.world import Restless, World

HISTORIES = 200
"""So many different histories; seeds that are equal modulo this number share one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed."""

    seed: int
    complaints: list[str]
    happened: Mapping[str, int] = field(default_factory=dict)
    turns: int = 0
    seconds: float = 0.0


class Runner:
    """Runs seeds on ``engine``'s database, which is all its own; keeps the calm runs."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._calm: dict[int, Found] = {}
        self._count = 0

    def run(self, seeds: Iterable[int]) -> Iterator[Outcome]:
        """One outcome a seed, as they come."""
        for seed in seeds:
            yield self.one(seed)

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
        self._count += 1
        empty(self._engine, anew=self._count % TRUNCATE_EVERY == 0)
        world = World(seed, history, self._engine)
        try:
            world.run()
        except Restless as error:
            complaints = [f"lost: not at rest: {error}"]
        except Fault as error:
            complaints = [f"wrong: {error} ended: {_where(error.__cause__)}"]
        else:
            found = verdict.look(self._engine)
            complaints = verdict.judge(Case(history, world.log, world.province, found, wanted))
            complaints += [f"wrong: {surprise}" for surprise in world.surprises]
        return Outcome(seed, complaints, world.happened, world.schedule.turns, perf_counter() - began)


def _where(error: BaseException | None) -> str:
    """The innermost frames of an exception and its type; no values."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)[-4:]
    places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__} at {places}"
