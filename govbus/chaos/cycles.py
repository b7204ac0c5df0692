"""Faults that come and go while events flow: break, wait, mend, and see that all goes on alone.

What breaks and mends is the parts' (``database``, ``network``, ``province``); here is what they share: the cycle, what
every process said while it waited, and the figures. A process that ends although only something else was broken
is a finding: it should have waited.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from confluent_kafka import KafkaException
from kafka.errors import KafkaError

from govbus.chaos.fleet import KINDS
from govbus.chaos.rounds import Tell, stalled, told
from govbus.chaos.stage import LOOK_S, Stage, percentile
from govbus.chaos.watch import Stalled

ROUND = 17
CASES_A_FAULT = 60
BROKEN_S = (1.0, 4.0)
CALM = ("relay", "worker", "consume", "push")
"""Kinds of process that must have done, after a fault, all that stood to be done."""
MOST_ENDS = 8
"""So many processes ending by themselves are a crash loop."""
AWAY = (sa.exc.SQLAlchemyError, KafkaError, KafkaException)
"""What the rig itself meets while something is broken."""
WORDS = ("waiting for", "waits_for", "consumer.waits", "consumer.reconnects")
"""What a process writes that waits."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that can be broken and mended. ``mend`` must work whatever ``broken`` achieved."""

    name: str
    broken: Callable[[], None]
    mend: Callable[[], None]
    seconds: tuple[float, float] = BROKEN_S


@dataclass(slots=True)
class Found:
    """What came of the cycles of one round."""

    by: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def cycles(stage: Stage, faults: Sequence[Fault], count: int) -> Found:
    """``count`` faults in turn while the year is published. Raises ``Stalled``."""
    found = Found()
    for number in range(count):
        fault = faults[number % len(faults)]
        fault.broken()
        try:
            _flow(stage, stage.rng.uniform(*fault.seconds))
        finally:
            fault.mend()
        found.seconds.append(recovered(stage, fault.name))
        found.by[fault.name] += 1
    return found


def recovered(stage: Stage, what: str) -> float:
    """Seconds until all that stands to be done now is done, and every process runs. Raises ``Stalled``."""
    since = time.monotonic()
    _insist(stage, lambda: _stand(stage))
    mine = stage.watch.recoveries[-len(CALM) :]
    seen: object = None
    moved = since
    while not (all(one.seconds is not None for one in mine) and not stage.fleet.missing()):
        look(stage)
        now = [one.seconds for one in mine], _moved(stage)
        if now != seen:
            seen, moved = now, time.monotonic()
        if time.monotonic() - moved > stage.watch.patience:
            raise Stalled(f"after {what}")
    return max(one.seconds or 0.0 for one in mine)


def _stand(stage: Stage) -> None:
    """Note what stands to be done by each kind of ``CALM``. Raises ``KafkaError`` if the broker did not say."""
    before = len(stage.watch.recoveries)
    for kind in CALM:
        stage.watch.died(kind)
    if len(stage.watch.recoveries) < before + len(CALM):
        raise KafkaError("no ends")


def _flow(stage: Stage, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stage.flow()
        look(stage)


def look(stage: Stage) -> None:
    """``stage.look``, which may find database or broker away; refuses a crash loop."""
    try:
        stage.look()
    except AWAY:
        time.sleep(LOOK_S)
    ends = ended(stage)
    if len(ends) > MOST_ENDS:
        raise Stalled(f"a crash loop: {', '.join(ends)}")


def _moved(stage: Stage) -> object:
    try:
        return stage.watch.moved()
    except sa.exc.SQLAlchemyError:
        return None


def _insist(stage: Stage, act: Callable[[], object]) -> None:
    """``act`` as soon as database and broker answer."""
    end = time.monotonic() + stage.watch.patience
    while True:
        try:
            act()
        except AWAY as error:
            if time.monotonic() > end:
                raise Stalled(f"no answer: {type(error).__name__}") from error
            look(stage)
        else:
            return


def ended(stage: Stage) -> list[str]:
    """Processes that ended though nothing was done to them, with their exit codes."""
    return [f"{d.name} {d.code}" for d in stage.fleet.deaths if d.by == "itself"]


def last_words(stage: Stage, name: str) -> str:
    """What a process wrote when it ended by a fault of its own: an error's type and place, no content."""
    path = stage.fleet.log(name)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    found = [line for line in lines if "ending the process" in line or "process.fails" in line]
    return f": {found[-1][:400]}" if found else ""


def said(stage: Stage) -> dict[str, int]:
    """How often each kind of process said that it waits."""
    found: Counter[str] = Counter()
    for name in stage.fleet.names:
        path = stage.fleet.log(name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        found[KINDS[name]] += sum(any(word in line for word in WORDS) for line in lines)
    return dict(found)


Setting = AbstractContextManager[tuple[Stage, Sequence[Fault]]]


def round_of(setting: Setting, count: int, seed: int) -> dict[str, Any]:
    """A bus of its own, ``count`` faults, the oracle's verdict."""
    with setting as (stage, faults):
        found = Found()
        try:
            found = cycles(stage, faults, count)
            verdict = stage.finish()
        except Stalled as error:
            verdict = stalled(error)
        figures = told(verdict, seed)
        figures["faults"] += [
            f"seed {seed}: did not wait but ended: {one}{last_words(stage, one.split()[0])}" for one in ended(stage)
        ]
        return {
            **figures, "seed": seed, "count": max(1, sum(found.by.values())), "by": found.by,
            "seconds": found.seconds, "said": said(stage),
        }  # fmt: skip


def rounds(
    setting: Callable[[int, int], Setting], label: str, count: int, seed: int, tell: Tell, waiting: Sequence[str] = ()
) -> dict[str, Any]:
    """``count`` faults in rounds; ``setting(seed, count)`` makes a round's bus. ``waiting``: kinds that must have said
    that they wait.
    """
    made: list[dict[str, Any]] = []
    done = 0
    while done < count:
        tell(label, done, count)
        mine = min(ROUND, count - done)
        made.append(round_of(setting(seed + len(made), mine), mine, seed + len(made)))
        done += mine if made[-1]["faults"] else made[-1]["count"]
    return _summed(made, waiting)


def _summed(made: Sequence[Mapping[str, Any]], waiting: Sequence[str]) -> dict[str, Any]:
    seconds = [s for r in made for s in r["seconds"]]
    said_by = sum((Counter(r["said"]) for r in made), Counter[str]())
    faults = [f for r in made for f in r["faults"]]
    faults += [f"{kind} never said that it waits" for kind in waiting if not said_by[kind]]
    return {
        "faults_made": sum(sum(r["by"].values()) for r in made), "seeds": [r["seed"] for r in made],
        "by": dict(sorted(sum((r["by"] for r in made), Counter[str]()).items())),
        **{name: sum(r[name] for r in made) for name in ("events", "lost", "doubled")}, "faults": faults,
        "said_that_they_wait": {kind: said_by[kind] for kind in waiting},
        "recovery_s": {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95),
                       "max": round(max(seconds, default=0.0), 2)},
        "clean": not faults, "met": not faults,
    }  # fmt: skip
