"""Rounds in which ours, the peers and the limits take turns, each round beginning with another one; and the judging
of the peers' counts at the end of each round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from bench import counts
from bench.given import Given
from bench.measure import Figures, Round
from bench.peers.protocol import NotRun, Task, Told, measure, verdict
from bench.peers.table import Peer
from bench.stand import Stand

Ours = Callable[[int], tuple[Figures, Figures, pl.DataFrame | None]]
"""Takes the round's number; gives our figures, limits measured on the way, and our cells (None: the log's)."""
Limits = Callable[[], Figures]
NOT_CHOSEN = "not chosen (--peers)"


@dataclass
class _Turn:
    """What one round has found so far."""

    ours: Figures = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    cells: pl.DataFrame | None = None
    told: dict[str, tuple[Told, Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Contest:
    """Measures ``given.rounds`` rounds over ``task``. A peer that failed is not tried again, one not chosen is not
    tried at all; both are reported as not run.
    """

    stand: Stand
    given: Given
    task: Task
    peers: Sequence[Peer]
    ours: Ours
    limits: Limits
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = self.given.peers
        self.failed |= {p.name: NOT_CHOSEN for p in self.peers if wanted is not None and p.name not in wanted}

    def rounds(self) -> list[Round]:
        """All rounds."""
        self.given.tell("count the log", 0, self.task.count)
        whole = counts.of_log(self.stand.kafka, self.task.topic, self.task.fields)
        return [self._round(number, whole) for number in range(self.given.rounds)]

    def _round(self, number: int, whole: pl.DataFrame) -> Round:
        turn = _Turn()
        running = [p for p in self.peers if p.name not in self.failed]
        steps: list[Callable[[], None]] = [partial(self._ours, number, turn), partial(self._limits, turn)]
        steps += [partial(self._peer, peer, turn) for peer in running]
        shift = number % len(steps)
        for step in (*steps[shift:], *steps[:shift]):
            step()
        peers = self._judged(turn, whole)
        self.failed |= turn.failed
        return Round(turn.ours, peers, turn.limits, {**self.failed})

    def _ours(self, number: int, turn: _Turn) -> None:
        turn.ours, limits, turn.cells = self.ours(number)
        turn.limits.update(limits)

    def _limits(self, turn: _Turn) -> None:
        self.given.tell("limits", 0, 1)
        turn.limits.update(self.limits())

    def _peer(self, peer: Peer, turn: _Turn) -> None:
        task = Task(self.task.topic, self.task.fields, peer.count(self.task.count))
        dump = self.stand.home / f"{peer.name}.cells"
        self.given.tell(peer.name, 0, task.count)
        try:
            turn.told[peer.name] = measure(self.stand, peer.name, peer.command(self.given.tools), task, dump), dump
        except NotRun as why:
            turn.failed[peer.name] = str(why)

    def _judged(self, turn: _Turn, whole: pl.DataFrame) -> Mapping[str, Figures]:
        """The figures of the peers that counted as we did."""
        fine = {}
        for name, (told, dump) in turn.told.items():
            self.given.tell(f"check {name}", 0, 1)
            wrong = verdict(self.stand, self.task, whole if turn.cells is None else turn.cells, told, dump)
            if wrong:
                turn.failed[name] = wrong
            else:
                fine[name] = {"rate": told.rate, "events": float(told.events)}
        return fine
