"""The fault rig's parts by name: what each does, its target, and what it found, as plain figures.

A part is one entry of ``PARTS``; all share the harness (``stage``) and the oracle. Rounds are small, so that a fault
is found early and its seed makes it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from govbus.chaos.bites import bite
from govbus.chaos.brokers import BROKERS, brokers
from govbus.chaos.cuts import cuts
from govbus.chaos.fleet import KINDS
from govbus.chaos.ground import ground, scratch
from govbus.chaos.kills import kills
from govbus.chaos.planted import BUGS
from govbus.chaos.rounds import judged
from govbus.chaos.sim.seeds import simulated
from govbus.chaos.stage import percentile, stage
from govbus.chaos.upgrade import upgraded
from govbus.chaos.watch import Stalled
from govbus.chaos.zombies import zombies
from streams.store import failpoints

Tell = Callable[[str, int, int], None]
ROUND = 130
"""Kills in one round: every failpoint about twice, then as many from outside."""
CASES_A_KILL = 8
CASES_A_ZOMBIE, CASES_A_BROKER, CASES_A_CUT, CASES_OF_AN_UPGRADE = 80, 40, 60, 120
RECOVERY_TARGET_S = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """``text`` and ``target`` as the report prints them; ``run`` takes how many, a seed, and whom to tell."""

    text: str
    target: str
    run: Callable[[int, int, Tell], dict[str, Any]]


def killed(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` kills of every kind of process, in rounds, each judged by the oracle."""
    rounds: list[dict[str, Any]] = []
    done = 0
    while done < count:
        tell("kill -9", done, count)
        rounds.append(_round(min(ROUND, count - done), seed + len(rounds)))
        done += max(1, rounds[-1]["kills"])
    by = sum((Counter(r["by"]) for r in rounds), Counter[str]())
    seconds = [s for r in rounds for s in r["seconds"]]
    figures = {
        "kills": done, "seeds": [r["seed"] for r in rounds], "by": dict(sorted(by.items())),
        "failpoints_never_reached": [p for p in failpoints.NAMES if p not in by],
        "events": sum(r["events"] for r in rounds), "faults": [f for r in rounds for f in r["faults"]],
        "ended_by_themselves": sum(r["ended"] for r in rounds),
        "recovery_s": {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95), "max": max(seconds)},
    }  # fmt: skip
    met = not figures["faults"] and figures["recovery_s"]["p95"] < RECOVERY_TARGET_S
    return {**figures, "clean": not figures["faults"], "met": met}


def _round(count: int, seed: int) -> dict[str, Any]:
    """A bus of its own, a year, ``count`` kills, a verdict."""
    times = max(1, count // 2 // len(failpoints.NAMES)) if count >= len(failpoints.NAMES) else 0
    with scratch() as home, ground(home) as bus, stage(bus, seed, CASES_A_KILL * count) as made:
        try:
            figures = kills(made, count, times)
            verdict = made.finish()
        except Stalled as error:
            figures = {"kills": len(made.fleet.deaths), "by": {}}
            verdict = {"clean": False, "shown": {"lost": [f"stalled: {error}"]}, "ledgers": {}}
        found = [f"seed {seed}: {text}" for texts in verdict["shown"].values() for text in texts]
        found += [f"seed {seed}: {verdict['failed']}"] if verdict.get("failed") else []
        seconds = [s for kind in made.recoveries().values() for s in kind]
        return {
            "seed": seed, "kills": figures["kills"], "by": figures["by"], "faults": found, "seconds": seconds,
            "ended": len(made.ends), "events": verdict["ledgers"].get("accepted", 0),
        }  # fmt: skip


def zombied(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` workers stopped past their session, in one round."""
    tell("zombies", 0, count)
    return judged(lambda made: zombies(made, count), seed, CASES_A_ZOMBIE * count)


def brokers_struck(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` blows against brokers of three, in one round."""
    tell("brokers", 0, count)
    found = judged(lambda made: brokers(made, count), seed, CASES_A_BROKER * count, BROKERS)
    clean = found["clean"] and not found.get("falsely_acknowledged")
    return {**found, "clean": clean, "met": clean}


def rolled(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` rolling upgrades, each in a round of its own."""
    rounds = []
    for number in range(count):
        tell("rolling upgrades", number, count)
        rounds.append(judged(upgraded, seed + number, CASES_OF_AN_UPGRADE))
    faults = [fault for one in rounds for fault in one["faults"]]
    written = [one.get("ratings_by_schema_id", {}) for one in rounds]
    return {"upgrades": count, "events": sum(one["events"] for one in rounds), "ratings_by_schema_id": written,
            "ended_by_themselves": sum(one["ended_by_themselves"] for one in rounds), "faults": faults,
            "clean": not faults, "met": not faults}  # fmt: skip


def logs_lost(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` losses of a single broker, in one round."""
    tell("lost logs", 0, count)
    found = judged(lambda made: cuts(made, count), seed, CASES_A_CUT * count)
    clean = found["clean"] and not found.get("wrong")
    return {**found, "clean": clean, "met": clean}


def planted(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """The first ``count`` planted bugs, one after the other."""
    names = list(BUGS)[:count]
    bites = []
    for number, name in enumerate(names):
        tell("planted bugs", number, len(names))
        with scratch() as home:
            bites.append(bite(home, name, seed))
    caught = sum(b.caught for b in bites)
    said = {b.name: {"text": BUGS[b.name].text, "caught": b.caught, "how": b.how} for b in bites}
    return {"planted": len(bites), "caught": caught, "bugs": said, "clean": caught == len(bites),
            "met": caught == len(bites)}  # fmt: skip


PARTS: Mapping[str, Part] = {
    "kills": Part(
        f"kill -9 at {len(failpoints.NAMES)} failpoints and at random moments of {len(KINDS)} processes",
        "0 lost, 0 doubled; recovery p95 under 10 s", killed,
    ),
    "seeds": Part("deterministic simulation: one seed decides every turn", "0 lost, 0 doubled", simulated),
    "zombies": Part("workers stopped past their session timeout", "0 stale effects", zombied),
    "brokers": Part(
        "one broker of three killed or stopped past its session, every tenth time two",
        "0 acknowledged events lost, no false success", brokers_struck,
    ),
    "logs": Part(
        "a single broker loses acknowledged records: torn logs, topics made again, damaged batches",
        "every loss noticed, found and sent again; 0 lost, 0 doubled", logs_lost,
    ),
    "upgrades": Part(
        "rolling upgrade: old and new schema, old and new workers", "nothing refused, 0 lost, 0 doubled", rolled
    ),
    "planted": Part("planted bugs, real processes", "every one caught", planted),
}  # fmt: skip
