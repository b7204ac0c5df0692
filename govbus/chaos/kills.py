"""kill -9 at every failpoint and at random moments, of every process, several of them in one cycle.

A cycle chooses processes, lets each die (at its failpoint, armed by a signal, or from outside at a random moment),
and waits until everything that stood to be done at the death is done: the recovery. A process that does not come
to its failpoint within ``PATIENCE_S`` is killed from outside and the failpoint is tried again later.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from govbus.chaos.fleet import KINDS, USUAL, Life
from govbus.chaos.stage import MOST, Stage, by
from streams.store import failpoints

PATIENCE_S = 12.0
TRIES = 5
OWNERS = {
    "publish": ("feed",), "relay": ("relay",), "worker": ("worker",), "apply": ("worker",), "tick": ("worker",),
    "aside": ("worker",), "consume": ("consume", "push"), "push": ("push",), "province": ("province",),
}  # fmt: skip
"""Which kinds of process come to the failpoints of a group."""
MOST_REACHES = {"apply": 8, "worker": 4, "tick": 4, "publish": 4}
USUAL_REACHES = 2
"""Before dying at a failpoint a process comes past it at most so often less one."""
SHARE = 0.85
"""The share of the processes that die in one cycle."""
LATEST_S = 2.0
"""When in a cycle a kill from outside comes at the latest."""
GRACE_S = 1.0
FLOW = 35.0
"""Rows a second that flow while every kind of process is killed: a process with nothing to do comes to no failpoint, so
the year must last as long as the kills.
"""
ALL = tuple(dict.fromkeys(KINDS[name] for name in USUAL))


@dataclass(frozen=True, slots=True)
class Job:
    """One kill to be made: at a failpoint, or (without one) from outside."""

    place: str = ""
    tries: int = TRIES


NO_JOB = Job(tries=0)


@dataclass(slots=True)
class Cycles:
    """What each kind of process still has to die of, and what the present life of each name is armed with."""

    stage: Stage
    jobs: dict[str, deque[Job]]
    armed: dict[str, Job] = field(default_factory=dict)

    def arm(self, name: str) -> str:
        """The failpoint for the next life of ``name``; it waits for the signal."""
        jobs = self.jobs[KINDS[name]]
        job = self.armed[name] = jobs.popleft() if jobs else NO_JOB
        if not job.place:
            return ""
        most = MOST_REACHES.get(job.place.partition(".")[0], USUAL_REACHES) if job.tries == TRIES else 1
        return f"{job.place}:{self.stage.rng.randint(1, most)}@later"

    def left(self) -> int:
        """Kills still to be made."""
        return sum(map(len, self.jobs.values())) + sum(bool(job.tries) for job in self.armed.values())

    def run(self, names: Sequence[str]) -> None:
        """One cycle: ``names`` die, everything recovers."""
        lives = {name: self.stage.fleet.lives[name] for name in names}
        due = {name: time.monotonic() + self._begin(name) for name in names}
        while any(life.process.poll() is None for life in lives.values()):
            self.stage.flow()
            self.stage.look()
            for name, life in lives.items():
                if not life.killed and life.process.poll() is None and time.monotonic() > due[name]:
                    self._again(name)
                    self.stage.fleet.kill(name)
        self.recover()

    def recover(self) -> None:
        """Look on until every process runs and every recovery is complete. Raises ``Stalled``."""
        self.stage.look_until(self._calm, "recovery after a kill")

    def _begin(self, name: str) -> float:
        """Arm ``name`` now; the seconds after which it is killed from outside."""
        if not self.armed[name].place:
            return self.stage.rng.uniform(0.0, LATEST_S)
        self.stage.fleet.signal(name, failpoints.SIGNAL)
        return PATIENCE_S

    def _again(self, name: str) -> None:
        job = self.armed[name]
        if job.place and job.tries > 1:
            self.jobs[KINDS[name]].append(Job(job.place, job.tries - 1))

    def _calm(self) -> bool:
        """Whether all run. One that has just died may still be among the living: nobody has looked since."""
        lives = self.stage.fleet.lives
        return (
            not self.stage.fleet.missing()
            and all(r.seconds is not None for r in self.stage.watch.recoveries)
            and all(life.process.poll() is None and life.age > GRACE_S and listens(life) for life in lives.values())
        )


def listens(life: Life) -> bool:
    """Whether a process has the handler that arms it, as the kernel says; one without a failpoint needs none."""
    if not life.place:
        return True
    try:
        lines = Path(f"/proc/{life.process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return False
    caught = next((line.split("\t")[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (failpoints.SIGNAL - 1) & 1)


def plan(
    rng: random.Random,
    count: int,
    times: int,
    places: Sequence[str] = failpoints.NAMES,
    victims: Sequence[str] = ALL,
) -> dict[str, deque[Job]]:
    """``times`` kills at every failpoint and as many of ``victims`` from outside as make ``count``, by kind."""
    jobs: dict[str, list[Job]] = {kind: [] for kind in KINDS.values()}
    for place in places:
        for number in range(times):
            kinds = OWNERS[place.partition(".")[0]]
            jobs[kinds[number % len(kinds)]].append(Job(place))
    processes = Counter(KINDS[name] for name in USUAL)
    for _ in range(count - times * len(places)):  # each process has as much to die of, so that cycles are few
        jobs[min(victims, key=lambda kind: len(jobs[kind]) / processes[kind])].append(Job())
    for found in jobs.values():
        rng.shuffle(found)
    return {kind: deque(found) for kind, found in jobs.items()}


def kills(
    stage: Stage, count: int, times: int, places: Sequence[str] = failpoints.NAMES, kinds: Sequence[str] = ALL
) -> dict[str, Any]:
    """Kill processes of ``kinds`` ``count`` times while the year is published in step, or, where it flows at a rate of
    its own, spread over it; how many died of what.
    """
    cycles = Cycles(stage, plan(stage.rng, count, times, places, kinds))
    stage.plan = cycles.arm
    for name in list(stage.fleet.lives):
        stage.fleet.kill(name)  # the first life of each was without a failpoint
    stage.wait(GRACE_S)
    cycles.recover()
    before, planned = len(stage.fleet.deaths), cycles.left()
    while left := cycles.left():
        while stage.rate and stage.published < MOST * (1 - left / planned):
            stage.flow()
            stage.look()
        cycles.run(_chosen(cycles))
    deaths = [d for d in stage.fleet.deaths[before:] if d.by != "itself"]
    return {"kills": len(deaths), "by": by(deaths)}


def _chosen(cycles: Cycles) -> list[str]:
    """Who dies in this cycle: some of those that still have something to die of."""
    open_ = [n for n in cycles.stage.fleet.names if cycles.armed[n].tries or cycles.jobs[KINDS[n]]]
    chosen = [n for n in open_ if cycles.stage.rng.random() < SHARE]
    return chosen or [cycles.stage.rng.choice(open_)]
