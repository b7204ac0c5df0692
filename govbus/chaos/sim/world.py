"""One seed's world: who lives in it, what goes wrong in it, and how it comes to rest.

A world is a function of its seed. The seed gives the history, the faults and every turn.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

import sqlalchemy as sa
from kafka.partitioner.default import murmur2

from govbus.chaos.sim import members, verdict
from govbus.chaos.sim.database import Connection, Weather
from govbus.chaos.sim.history import END, History
from govbus.chaos.sim.kinds import AWAY, LATE, LOST, REFUSED, RESET, TWICE, UNCOMMITTED, UNRECEIPTED, Moment
from govbus.chaos.sim.log import Group, Log
from govbus.chaos.sim.members import EFFECTS, SETTLE_MS, Department, Province, Worker
from govbus.chaos.sim.schedule import Process, Schedule, Trap
from govbus.district.model import Row
from streams.store.horizon import Clock
from streams.store.tables import cursor

WORKERS = 2
BUDGETS = (0, 5, 10, 16)
"""So many faults, one of these."""
TURNS_BETWEEN_FAULTS = (20, 60, 150)
"""At most so many, one of these."""
LINGERS = (0, 150, 300)
"""At most so many turns more while traps lie open."""
HOLES = (0.0, 0.0, 0.15)
"""How often an offset holds no record."""
MOMENTS: tuple[Moment | None, ...] = (None, "before a commit", "after a durable step", "after a durable step")
STEPS = (1, 1, 1, 2)
"""A trap springs as its kind of process comes to such a moment for this time."""
AGAIN_TURNS = 25
"""A fault that finds nothing to harm is tried again after so many turns,"""
AHEAD_MS = (0, 0, 3 * 86_400_000)
"""How far a wall clock is ahead of what the bus has not heard of yet, one of these."""
RAN_BEFORE = 0.7
"""Share of worlds in which every cursor is there already."""
TRIES = 8
"""at most so often."""
LONGEST_REST_S = 600.0
"""Virtual seconds after the last fault within which everything must have settled: the push's waits are stretched."""
_UNSETTLED = sa.text(
    "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL) OR EXISTS (SELECT FROM push_queue) "
    "OR EXISTS (SELECT FROM rating_cell_change) OR EXISTS (SELECT FROM rollup_dirty) "
    "OR EXISTS (SELECT FROM case_state WHERE next_check_at <= :end) "
    "OR EXISTS (SELECT FROM group_state WHERE next_check_at <= :end) OR EXISTS (SELECT FROM case_group WHERE stale) "
    "OR EXISTS (SELECT FROM desk_check WHERE next_check_at <= :end) "
    "OR EXISTS (SELECT FROM rating_claim_news) OR EXISTS (SELECT FROM rating_out_news), "
    "(SELECT coalesce(sum(next_offset), 0) FROM cursor)"
)


class Rain(Weather):
    """Connections that break now and then while the weather is bad."""

    def __init__(self, rng: random.Random, chance: float) -> None:
        self.chance = chance
        self._rng = rng

    def rain(self) -> bool:
        """Whether the connection breaks now."""
        return self._rng.random() < self.chance

    def unanswered(self) -> bool:
        """Every other time."""
        return self._rng.random() < 0.5


class Restless(Exception):
    """The world did not come to rest; the text says what was left."""


class World:
    """The processes, the log, the group and the faults of one seed on an empty database."""

    def __init__(self, seed: int, history: History, engine: sa.Engine) -> None:
        self.rng = random.Random(seed)
        self.schedule = Schedule(self.rng)
        self.log = Log(self.rng, self.rng.choice(HOLES))
        self._engine = engine
        self._history = history
        self._group = Group(self.log, self.log.places(history.topics))
        self._steps = 0
        self._asked: tuple[Any, tuple[bool, int]] = (None, (True, 0))
        self._healing: list[tuple[int, float, Callable[[], None]]] = []
        self._bad = self.rng.choice((0.0, 0.02, 0.1))
        self._faults = self.rng.choice(BUDGETS)
        self._gap = self.rng.choice(TURNS_BETWEEN_FAULTS)
        self._rain = Rain(self.rng, self.rng.choice((0.0, 0.002, 0.01)))
        self._clock: Clock = self.rng.choice(("wall", "watermark"))
        self._ahead = self.rng.choice(AHEAD_MS)
        self.province = Province(self.rng, self._fails)
        self._departments = self._made_departments()
        self._workers: list[Worker] = []
        self._killable: dict[Process, Callable[[], None]] = {}
        self.killed_after: Counter[str] = Counter()
        """Kills, by the durable step before them."""

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
        if self.rng.random() < RAN_BEFORE:
            self._begin_cursors()
        for number, department in enumerate(self._departments):
            self._live(f"department-{number}", department.run)
        for number in range(WORKERS):
            self._hire(f"worker-{number}")
        relays = self.rng.choice((1, 1, 2))
        for number in range(relays):
            self._live(f"relay-{number}", members.relay(self._engine, self.rng.choice((4, 15, 50))))
        for effect in EFFECTS:
            for number in range(self.rng.choice((1, 1, 1, 2))):
                self._live(f"{effect().name}-{number}", members.consumer(self._engine, effect()))
        for number in range(self.rng.choice((1, 1, 2))):
            self._live(f"desk-{number}", members.desk(self._engine, self._clock, self._wall_ms))
        self._live("push-0", members.push(self._engine, self.province))
        stranger = Process(self.schedule, "stranger")
        stranger.spawn(partial(members.smuggle, self.log, self._history.strays))
        self._regroup()

    def _begin_cursors(self) -> None:
        """As a bus that ran before has left them; else whoever is first makes them."""
        rows = [
            {"processor": name, "topic": topic, "partition": partition}
            for name, followed in verdict.followers()
            for topic, partition in self.log.places([followed])
        ]
        with self._engine.begin() as tx:
            tx.execute(sa.insert(cursor), rows)

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
        """The districts' time: the next thing the bus hears of is about to be received, or, where clocks run ahead of a
        sender, should have been.
        """
        unheard = [d.rows[0].received_at for d in self._departments if d.rows]
        return SETTLE_MS + (min(min(unheard) - 1 + self._ahead, END) if unheard else END)

    # --- what goes wrong in it ---

    def _suffer(self) -> None:
        """Take turns, with a fault now and then, until everything is published and no fault is left; then a while."""
        while self._faults > 0 or any(d.rows for d in self._departments):
            self._turns(self.rng.randrange(self._gap))
            if self._faults > 0:
                self._faults -= 1
                self.rng.choice(self._kinds())()
        for _ in range(self.rng.choice(LINGERS)):
            if any(self.schedule.traps.values()):
                self._turn()

    def _turns(self, count: int) -> None:
        for _ in range(count):
            self._turn()

    def _turn(self) -> None:
        self._steps += 1
        while self._healing and self._healing[0][0] <= self._steps:
            heappop(self._healing)[2]()
        if not self.schedule.turn():
            self.schedule.let_time_pass()

    def _mend(self, act: Callable[[], None], turns: int = 0) -> None:
        """``act`` some turns from now."""
        at = self._steps + (turns or self.rng.choice((20, 100, 250)))
        heappush(self._healing, (at, self.rng.random(), act))

    def _kinds(self) -> Sequence[Callable[[], None]]:
        """The faults, the more important ones more than once."""
        return (
            *repeat(partial(self._meanwhile, "kill", self._kill), 5),
            *repeat(partial(self._meanwhile, "freeze", self._freeze), 2),
            *repeat(partial(self._meanwhile, "rebalance", self._rebalance), 2),
            *repeat(self._break, 2), *repeat(self._mislay, 3), *repeat(self._mishap_outside, 2), self._lose_broker,
            partial(self._if_any, RESET, self._reset), partial(self._if_any, UNCOMMITTED, self._uncommit),
        )  # fmt: skip

    def _meanwhile(self, fault: str, act: Callable[[Process], None]) -> None:
        """``act`` on some process: right now, wherever it stands, or as it next comes to a moment that is short."""
        kinds = self._by_kind()
        kind = "worker" if fault == "rebalance" else self.rng.choice(list(kinds))
        moment = self.rng.choice(MOMENTS)
        if moment is None:
            self.schedule.note(f"{fault} anywhere")
            return act(self.rng.choice(kinds[kind]))

        def spring(process: Process, place: str) -> None:
            self.schedule.note(f"{fault} {moment}")
            if moment == "after a durable step" and fault == "kill":
                self.killed_after[place] += 1
            act(process)

        self.schedule.traps[kind].append(Trap(moment, self.rng.choice(STEPS), spring))
        return None

    def _by_kind(self) -> dict[str, list[Process]]:
        """Whoever can be killed: each kind is as likely as any other."""
        kinds: dict[str, list[Process]] = {}
        for process in self._killable:
            kinds.setdefault(process.kind, []).append(process)
        return kinds

    def _kill(self, process: Process) -> None:
        """kill -9; it is started again, a worker as a new member."""
        again = self._killable.pop(process)
        process.kill()
        dead = [w for w in self._workers if w.process is process]
        for worker in dead:
            self._workers.remove(worker)
        again()
        if dead:
            self._regroup()

    def _rebalance(self, _: Process) -> None:
        self._regroup()

    def _regroup(self) -> None:
        """A new generation of the members that the coordinator believes to be alive; some may know it late."""
        alive = [w.member for w in self._workers if not w.process.frozen]
        if len(alive) > 1 and self.rng.random() < 0.3:
            alive = [self.rng.choice(alive)]
        self._group.rebalance(alive)

    def _freeze(self, process: Process) -> None:
        """SIGSTOP past the session timeout: the others take over, and it will go on where it stands."""
        process.frozen = True
        self._regroup()
        self._mend(partial(self._thaw, process))

    def _thaw(self, process: Process) -> None:
        """SIGCONT: a zombie goes on, with what it holds in its hands; the group may take it back late."""
        process.frozen = False
        if self.rng.random() < 0.5:
            self._regroup()

    def _break(self) -> None:
        """The next statement or commit of some process meets a connection that breaks, before or after."""
        kinds = self._by_kind()
        process = self.rng.choice(kinds[self.rng.choice(list(kinds))])
        process.breaks = self.rng.choice(("statement", "lost", "unknown", "unknown"))

    def _mislay(self) -> None:
        """Something becomes of the chunk that a worker hands over next."""
        self.rng.choice(self._workers).mislay(self.rng.choice((LOST, LOST, LOST, TWICE, LATE)))

    def _mishap_outside(self) -> None:
        """The next batch is refused by the province, or its answer lost, or Kafka's to a producer."""
        how = self.rng.choice((REFUSED, UNRECEIPTED, ""))
        self.province.mishap, self.log.unanswered = how, not how

    def _lose_broker(self) -> None:
        """The brokers give no answer for a while."""
        self.schedule.note(AWAY)
        self.log.away = True
        self._mend(partial(setattr, self.log, "away", False))

    def _if_any(self, fault: str, act: Callable[[], bool], tries: int = TRIES) -> None:
        """``act`` as soon as it finds something to harm."""
        if act():
            self.schedule.note(fault)
        elif tries > 0:
            self._mend(partial(self._if_any, fault, act, tries - 1), AGAIN_TURNS)

    def _reset(self) -> bool:
        """A worker's positions fall back to the beginning, unnoticed."""
        return self.rng.choice(self._workers).fetcher.fall_back()

    def _uncommit(self) -> bool:
        """What Kafka was told about offsets is lost."""
        return self._group.forget_commits()

    def _fails(self) -> bool:
        return self.rng.random() < self._bad

    # --- how it comes to rest ---

    def _heal(self) -> None:
        """No more faults; whoever is frozen goes on."""
        self._bad = self._rain.chance = 0.0
        self.log.away = self.log.unanswered = False
        self.province.mishap = ""
        self.schedule.traps.clear()
        for worker in self._workers:
            worker.mislay("")
        for process in self._killable:
            process.frozen, process.breaks = False, ""
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
        unsettled, reached = self._database_says()
        if unsettled:
            return "rows unsent, unpushed, unsaid or unjudged"
        readers: Sequence[Any] = [e().topics for e in EFFECTS]
        carried = sum(self.log.end(p) for p in self.log.places(self._history.topics))
        carried += sum(self.log.end(p) for topics in readers for p in self.log.places(topics))
        return "" if reached == carried else f"cursors at {reached} of {carried}"

    def _database_says(self) -> tuple[bool, int]:
        """Whether rows are unsettled, and the sum of all cursors; asked again only if somebody wrote since."""
        written = self.schedule.reached.total()
        if self._asked[0] != written:
            with self._engine.connect() as tx:
                self._asked = written, tx.execute(_UNSETTLED, {"end": END}).one()
        return self._asked[1]

    def _end(self) -> None:
        """Everybody dies."""
        for process in list(self.schedule.processes):
            process.kill()
