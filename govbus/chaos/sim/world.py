"""One seed's world: who lives in it, what goes wrong in it, and how it comes to rest.

A world is a function of its seed. The seed gives the history, the faults and every turn.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any, Literal

import sqlalchemy as sa
from kafka.partitioner.default import murmur2

from govbus.chaos.sim import members
from govbus.chaos.sim.database import Connection, Weather
from govbus.chaos.sim.history import END, History
from govbus.chaos.sim.log import Group, Log
from govbus.chaos.sim.members import EFFECTS, SETTLE_MS, Department, Province, Worker
from govbus.chaos.sim.schedule import Process, Schedule
from govbus.district.model import Row

WORKERS = 2
TURNS_BETWEEN_FAULTS = 60
LONGEST_REST_S = 300.0
"""Virtual seconds after the last fault within which everything must have settled."""
_UNSETTLED = sa.text(
    "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL) OR EXISTS (SELECT FROM push_queue) "
    "OR EXISTS (SELECT FROM rating_cell_change) OR EXISTS (SELECT FROM rollup_dirty) "
    "OR EXISTS (SELECT FROM case_state WHERE next_check_at <= :end) "
    "OR EXISTS (SELECT FROM group_state WHERE next_check_at <= :end) OR EXISTS (SELECT FROM case_group WHERE stale) "
    "OR EXISTS (SELECT FROM rating_claim_news), "
    "(SELECT coalesce(sum(next_offset), 0) FROM cursor)"
)


class Rain(Weather):
    """Connections that break now and then while the weather is bad."""

    def __init__(self, rng: random.Random, chance: float) -> None:
        self.chance = chance
        self._rng = rng

    def rain(self) -> str:
        """``""``, ``lost`` or ``unknown``."""
        return self._rng.choice(("lost", "unknown")) if self._rng.random() < self.chance else ""


class Restless(Exception):
    """The world did not come to rest; the text says what was left."""


class World:
    """The processes, the log, the group and the faults of one seed on an empty database."""

    def __init__(self, seed: int, history: History, engine: sa.Engine) -> None:
        self.rng = random.Random(seed)
        self.schedule = Schedule(self.rng)
        self.log = Log(self.rng)
        self.happened: Counter[str] = Counter()
        """Faults by kind."""
        self._engine = engine
        self._history = history
        self._group = Group(self.log, self.log.places(history.topics))
        self._steps = 0
        self._healing: list[tuple[int, float, Callable[[], None]]] = []
        self._bad = self.rng.choice((0.0, 0.02, 0.1))
        self._faults = self.rng.choice((0, 2, 5, 10))
        self._rain = Rain(self.rng, self.rng.choice((0.0, 0.002, 0.01)))
        self._clock: Literal["wall", "watermark"] = self.rng.choice(("wall", "watermark"))
        self.province = Province(self.rng, self._fails)
        self._departments = self._made_departments()
        self._workers: list[Worker] = []
        self._killable: dict[Process, Callable[[], None]] = {}

    def run(self) -> None:
        """Live through everything and come to rest. Raises ``Fault`` or ``Restless``."""
        Connection.weather = self._rain
        with members.surroundings(self.schedule, self.log, self._fails):
            try:
                self._begin()
                self._suffer()
                self._heal()
                self._settle()
            finally:
                Connection.weather = Weather()
                self._end()

    @property
    def surprises(self) -> list[str]:
        """Wrong answers of publishers."""
        return [s for d in self._departments for s in d.surprises]

    # --- who lives in it ---

    def _made_departments(self) -> list[Department]:
        """Two senders; a key belongs to one of them, for order is kept by key."""
        shares: tuple[deque[Row], deque[Row]] = (deque(), deque())
        for row in self._history.rows:
            key = str(row.record.get(row.topic.key, ""))
            shares[murmur2(key.encode()) % 2].append(row)
        return [Department(self._engine, share, self.schedule, lambda _: None) for share in shares]

    def _begin(self) -> None:
        for number, department in enumerate(self._departments):
            self._live(f"department-{number}", department.run)
        for number in range(WORKERS):
            self._hire(f"worker-{number}")
        relays = self.rng.choice((1, 1, 2))
        for number in range(relays):
            self._live(f"relay-{number}", members.relay(self._engine, self.rng.choice((2, 7, 50))))
        for effect in EFFECTS:
            for number in range(self.rng.choice((1, 1, 2))):
                self._live(f"{effect().name}-{number}", members.consumer(self._engine, effect()))
        self._live("push-0", members.push(self._engine, self.province))
        stranger = Process(self.schedule, "stranger")
        stranger.spawn(partial(members.smuggle, self.log, self._history.strays))
        self._rebalance()

    def _live(self, name: str, run: Callable[[], None]) -> None:
        process = Process(self.schedule, name)
        process.spawn(run)
        self._killable[process] = partial(self._live, name, run)

    def _hire(self, name: str) -> None:
        process = Process(self.schedule, name)
        worker = Worker(
            process, self._engine, self.log, self._group, self._history, self._clock, self._wall_ms
        )
        worker.start()
        self._workers.append(worker)
        self._killable[process] = partial(self._hire, name)

    def _wall_ms(self) -> int:
        """The districts' time: the next thing the bus hears of is about to be received."""
        unheard = [d.rows[0].received_at for d in self._departments if d.rows]
        return SETTLE_MS + (min(unheard) - 1 if unheard else END)

    # --- what goes wrong in it ---

    def _suffer(self) -> None:
        """Take turns, with a fault now and then, until everything is published and no fault is left."""
        while self._faults > 0 or any(d.rows for d in self._departments):
            for _ in range(self.rng.randrange(TURNS_BETWEEN_FAULTS)):
                self._turn()
            if self._faults > 0:
                self._faults -= 1
                self._fault()

    def _turn(self) -> None:
        self._steps += 1
        while self._healing and self._healing[0][0] <= self._steps:
            heappop(self._healing)[2]()
        if not self.schedule.turn():
            self.schedule.let_time_pass()

    def _mend(self, act: Callable[[], None]) -> None:
        """``act`` some turns from now."""
        heappush(self._healing, (self._steps + self.rng.choice((20, 100, 400)), self.rng.random(), act))

    def _fault(self) -> None:
        """One fault of any kind."""
        faults = (
            self._kill, self._kill, self._kill, self._rebalance, self._rebalance, self._freeze, self._freeze,
            self._reset, self._drop, self._repeat, self._lose_commits, self._lose_broker,
        )  # fmt: skip
        fault = self.rng.choice(faults)
        self.happened[fault.__name__.strip("_")] += 1
        fault()

    def _kill(self) -> None:
        """kill -9 of any process; it is started again, a worker as a new member."""
        process = self.rng.choice(list(self._killable))
        again = self._killable.pop(process)
        process.kill()
        if dead := [w for w in self._workers if w.process is process]:
            self._workers.remove(dead[0])
            again()
            self._rebalance()
        else:
            again()

    def _rebalance(self) -> None:
        """A new generation of the members that the coordinator believes to be alive; some may know it late."""
        alive = [w.member for w in self._workers if not w.process.frozen]
        if len(alive) > 1 and self.rng.random() < 0.3:
            alive = [self.rng.choice(alive)]
        self._group.rebalance(alive)

    def _freeze(self) -> None:
        """SIGSTOP past the session timeout: the others take over, and it will go on where it stands."""
        process = self.rng.choice(list(self._killable))
        process.frozen = True
        self._rebalance()
        self._mend(partial(self._thaw, process))

    def _thaw(self, process: Process) -> None:
        """SIGCONT: a zombie goes on, with what it holds in its hands; the group may take it back late."""
        process.frozen = False
        if self.rng.random() < 0.5:
            self._rebalance()

    def _reset(self) -> None:
        """A worker's positions fall back to the beginning, unnoticed."""
        positions = self.rng.choice(self._workers).fetcher.positions
        for place in positions:
            positions[place] = 0

    def _drop(self) -> None:
        """A chunk between transport and line is gone: the next one starts above the cursor."""
        for buffer in self.rng.choice(self._workers).buffers.values():
            if buffer:
                buffer.popleft()

    def _repeat(self) -> None:
        """Chunks between transport and line are handed over twice."""
        for buffer in self.rng.choice(self._workers).buffers.values():
            buffer.extend(list(buffer))

    def _lose_commits(self) -> None:
        self._group.forget_commits()

    def _lose_broker(self) -> None:
        """The brokers give no answer for a while."""
        self.log.away = True
        self._mend(partial(setattr, self.log, "away", False))

    def _fails(self) -> bool:
        return self.rng.random() < self._bad

    # --- how it comes to rest ---

    def _heal(self) -> None:
        """No more faults; whoever is frozen goes on."""
        self._bad = self._rain.chance = 0.0
        self.log.away = False
        for process in self._killable:
            process.frozen = False
        self._group.rebalance([w.member for w in self._workers])

    def _settle(self) -> None:
        """Turns until nobody has anything left to do."""
        until = self.schedule.now + LONGEST_REST_S
        while True:
            while self.schedule.turn():
                pass
            left = self._left()
            if not left:
                return
            if self.schedule.now > until:
                raise Restless(left)
            self.schedule.let_time_pass()

    def _left(self) -> str:
        """What is still to do, "" if nothing is."""
        if any(d.rows for d in self._departments):
            return "rows to publish"
        if any(s.process.name == "stranger" for s in self.schedule.strands):
            return "strays to come"
        with self._engine.connect() as tx:
            unsettled, reached = tx.execute(_UNSETTLED, {"end": END}).one()
        if unsettled:
            return "rows unsent, unpushed, unsaid or unjudged"
        readers: Sequence[Any] = [e().topics for e in EFFECTS]
        carried = sum(self.log.end(p) for p in self.log.places(self._history.topics))
        carried += sum(self.log.end(p) for topics in readers for p in self.log.places(topics))
        return "" if reached == carried else f"cursors at {reached} of {carried}"

    def _end(self) -> None:
        """Everybody dies."""
        for process in list(self.schedule.processes):
            process.kill()
