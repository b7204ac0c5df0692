"""One round of the rig: a simulated year flows over a bus while something is broken, then the oracle judges.

Everything runs in the caller's thread: ``look`` is called again and again, keeps the processes running and closes
recoveries. A fault decides what to break and when; the stage decides nothing but that whatever died is started
again, and that a round is over when all has settled.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from govbus.chaos import notebook
from govbus.chaos.fleet import KINDS, USUAL, Death, Fleet
from govbus.chaos.ground import Ground, command, environment
from govbus.chaos.notebook import SLICE
from govbus.chaos.watch import Stalled, Watch
from govbus.district.generator import make
from govbus.district.publishing import raws, whole

LOOK_S, LONGEST_LOOK_S = 0.1, 1.0
FIRST_S = 120.0
JUDGE_S = 3_600.0
"""The oracle reads all that an hour brought: on a quick machine 900 s were not enough, and the soak had no result."""
MOST = 0.98
"""The share of the year that may be published while something is being broken; the rest follows in peace."""
AGAIN = 6
"""How often the oracle is asked anew while what it found may still be on its way."""
Plan = Callable[[str], str | None]
"""The failpoint that the next life of a process is armed with; None: not yet, ask again."""


def unarmed(_: str) -> str | None:
    """Every life is an ordinary one."""
    return ""


@dataclass(slots=True)
class Stage:
    """What a fault works with. ``rng`` is seeded: the same seed breaks the same things in the same order."""

    ground: Ground
    fleet: Fleet
    watch: Watch
    rng: random.Random
    plan: Plan = unarmed
    rows: int = 1
    """Rows of the whole year."""
    published: float = 0.0
    """The share of them that may have been published by now."""
    rate: float = 0.0
    """Rows a second that flow; 0: a slice at every look."""
    ends: list[Death] = field(default_factory=list)
    """Lives that ended though nothing was done to them."""
    poisoned: bool = False
    judged_with: tuple[str, ...] = ()
    """Options of the oracle: what a fault makes impossible to ask for."""
    _flowed: float = 0.0
    """When events last flowed (monotonic)."""

    def look(self) -> list[Death]:
        """Start again what died, close recoveries, wait a moment; returns who died."""
        deaths = self.fleet.reap()
        for death in deaths:
            self.watch.died(KINDS[death.name])
            if death.by == "itself":
                self.ends.append(death)
        for name in self.fleet.missing():
            place = self.plan(name)
            if place is not None:
                self.fleet.start(name, place)
        self.watch.look()
        time.sleep(LOOK_S)
        return deaths

    def wait(self, seconds: float) -> None:
        """Let things run for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()

    def publish_up_to(self, share: float) -> None:
        """Let the departments publish this share of the year."""
        notebook.allow(self.ground.home, share)

    def flow(self) -> None:
        """Let some more be published: called at every look, events flow as long as something is going on."""
        now = time.monotonic()
        since, self._flowed = self._flowed, now
        more = self.rate * min(now - since, LONGEST_LOOK_S) if self.rate else SLICE
        self.published = min(MOST, self.published + more / self.rows)
        self.publish_up_to(self.published)

    def look_until(self, done: Callable[[], bool], what: str) -> None:
        """Look on until ``done()``; raises ``Stalled`` when nothing has moved for the watch's patience."""
        seen, since = self.watch.moved(), time.monotonic()
        while not done():
            self.look()
            if (moved := self.watch.moved()) != seen:
                seen, since = moved, time.monotonic()
            if time.monotonic() - since > self.watch.patience:
                raise Stalled(f"nothing moves in {what}")

    def finish(self) -> dict[str, Any]:
        """Everything published, poison too; all settled; the oracle's verdict."""
        self.plan = unarmed
        for name in [n for n, life in self.fleet.lives.items() if life.place]:
            self.fleet.kill(name)
        self.publish_up_to(1.0)
        self.look_until(lambda: any("end" in entry for entry in notebook.entries(self.ground.home)), "publishing")
        if not self.poisoned:
            self.poison()
        return self._judged()

    def poison(self) -> None:
        """Records past the publisher, straight into the log, once in a round. Some are second copies: of what has been
        published and the relay has sent, or the log would not be in order.
        """
        there = notebook.answered(self.ground.home)
        self.look_until(self.watch.sent, "sending")
        _poison(self.ground, there)
        self.poisoned = True

    def _judged(self) -> dict[str, Any]:
        """The verdict once it is clean, or when asking again changes nothing."""
        verdict: dict[str, Any] = {}
        for _ in range(AGAIN):
            self.watch.settle(self.look)
            before = self.watch.moved()
            verdict = judge(self.ground, self.judged_with)
            self.wait(2.0)
            if verdict["clean"] or verdict.get("failed"):
                break
            if self.watch.moved() == before:
                verdict = judge(self.ground, self.judged_with)
                break
        return verdict

    def recoveries(self) -> dict[str, Any]:
        """Seconds to recover: number, median, 95th percentile and worst, over all and by kind of process."""
        kinds: dict[str, list[float]] = {}
        for one in self.watch.recoveries:
            kinds.setdefault(one.kind, []).append(one.seconds if one.seconds is not None else float("inf"))
        return {kind: sorted(round(s, 2) for s in found) for kind, found in kinds.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie; 0 without values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return round(statistics.quantiles(sorted(values), n=100, method="inclusive")[int(share * 100) - 1], 2)


@contextlib.contextmanager
def stage(
    ground: Ground,
    seed: int,
    cases: int,
    planted: Mapping[str, Sequence[str]] | None = None,
    extra: Mapping[str, str] | None = None,
    names: Sequence[str] = USUAL,
) -> Iterator[Stage]:
    """A bus under the flow of a simulated year, every process up and the first events applied."""
    ground.home.mkdir(parents=True, exist_ok=True)
    rows = notebook.store(ground.home, make(seed, cases, 0))
    notebook.allow(ground.home, 0.0)
    with Watch(ground) as watch, Fleet(ground, names, extra) as fleet:
        fleet.planted = planted or {}
        made = Stage(ground, fleet, watch, random.Random(seed), rows=rows)
        made.publish_up_to(0.001)
        end = time.monotonic() + FIRST_S
        while watch.moved()[0] is None and time.monotonic() < end:
            made.look()
        yield made


def judge(ground: Ground, options: Sequence[str] = ()) -> dict[str, Any]:
    """What the oracle's process says."""
    asked, env = command("govbus.chaos.oracle", *options), environment(ground.env())
    done = subprocess.run(asked, env=env, capture_output=True, text=True, check=False, timeout=JUDGE_S)
    if done.returncode:
        return {"clean": False, "failed": done.stderr[-3000:], "counts": {}, "shown": {}, "ledgers": {}}
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def by(deaths: Sequence[Death]) -> dict[str, int]:
    """How many lives ended how."""
    return dict(sorted(Counter(d.by for d in deaths).items()))


def _poison(ground: Ground, there: Set[str]) -> None:
    """Records past the publisher, straight into the log; second copies only of those that are ``there``."""
    district = notebook.load(ground.home).district
    found = [p for p in district.poison if p.kind != "duplicate" or whole(p.row)["event_id"] in there]
    settings = {"bootstrap.servers": ground.kafka, "enable.idempotence": True}
    producer = Producer({**settings, "partitioner": "murmur2_random"})  # keys where everybody's keys are
    for raw in raws(found):
        producer.produce(raw.topic.name, key=raw.key, value=raw.value, headers=raw.headers)
    if producer.flush(120):
        raise TimeoutError("Kafka does not take the poison")
