"""The fault rig's parts by name: what each does, its target, and what it found, as plain figures.

A part is one entry of ``PARTS``; all share the harness (``stage``) and the oracle. Rounds are small, so that a fault
is found early and its seed makes it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from govbus.chaos import database, network, poison, province, soak
from govbus.chaos.bites import bite
from govbus.chaos.fleet import KINDS
from govbus.chaos.ground import ground, scratch
from govbus.chaos.kills import kills
from govbus.chaos.planted import BUGS
from govbus.chaos.sim.seeds import simulated
from govbus.chaos.stage import percentile, stage
from govbus.chaos.watch import Stalled
from govbus.chaos.zombies import zombies
from streams.store import failpoints

Tell = Callable[[str, int, int], None]
ROUND = 130
"""Kills in one round: every failpoint about twice, then as many from outside."""
CASES_A_KILL = 8
CASES_A_ZOMBIE = 80
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
    with scratch() as home, ground(home) as bus, stage(bus, seed, CASES_A_ZOMBIE * count) as made:
        try:
            figures = zombies(made, count)
            verdict = made.finish()
        except Stalled as error:
            figures, verdict = {"zombies": count}, {"clean": False, "shown": {"lost": [f"stalled: {error}"]}}
        found = [f"seed {seed}: {text}" for texts in verdict["shown"].values() for text in texts]
        found += [f"seed {seed}: {verdict['failed']}"] if verdict.get("failed") else []
        return {**figures, "events": verdict.get("ledgers", {}).get("accepted", 0), "faults": found,
                "ended_by_themselves": len(made.ends), "clean": not found, "met": not found}  # fmt: skip


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
    "poison": Part(
        "records that no department would send, among good ones", "dead-letter count exact, no crash", poison.run
    ),
    "database": Part(
        "PostgreSQL killed, read-only, out of connections, disk full", "0 lost, 0 doubled, all wait", database.run
    ),
    "network": Part("the network cut, half open, refused, flapping", "0 lost, 0 doubled, all wait", network.run),
    "province": Part(
        "a province that is slow, refuses, answers twice or late, or lies",
        "0 lost, 0 doubled; the worker's p99 grows less than 10 %", province.run,
    ),
    "soak": Part("ordinary load for long", "memory under 1 MB/h per process, handles flat, one hour", soak.run),
    "planted": Part("planted bugs, real processes", "every one caught", planted),
}  # fmt: skip
