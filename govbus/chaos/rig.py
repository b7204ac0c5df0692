"""The fault rig's parts by name: what each does, its target, and what it found, as plain figures.

A part is one entry of ``PARTS``; all share the harness (``stage``) and the oracle. Rounds are small, so that a fault
is found early and its seed makes it again.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice, repeat
from multiprocessing import get_context
from typing import Any

from govbus.chaos import database, network, poison, province, soak
from govbus.chaos.bites import Bite, bite
from govbus.chaos.brokers import BROKERS, STRIKES, brokers
from govbus.chaos.cuts import WAYS, cuts
from govbus.chaos.fleet import KINDS, USUAL
from govbus.chaos.ground import scratch
from govbus.chaos.kills import FLOW, kills
from govbus.chaos.planted import BUGS, SOUND
from govbus.chaos.rounds import Tell, judged, rounds
from govbus.chaos.sim.seeds import simulated
from govbus.chaos.stage import Stage
from govbus.chaos.upgrade import upgraded
from govbus.chaos.watch import Stalled
from govbus.chaos.zombies import zombies
from streams.store import failpoints

ROUND = 130
"""Kills in one round."""
AT_FAILPOINTS = 0.6
"""The share of kills that are made at failpoints; the others come from outside."""
KILLS_A_TIME = 50
"""Of 1,000 kills at least 20 at every failpoint."""
CASES_A_KILL = 8
CASES_A_ZOMBIE, CASES_A_BROKER, CASES_A_CUT, CASES_OF_AN_UPGRADE = 80, 80, 120, 120
RECOVERY_TARGET_S = 10.0
EVENTS_A_KILL, EVENTS_OF_A_CASE = 4_000, 6.5
GIVE_UP_S = 900
"""A planted bug takes two minutes; with some of them a bus sends the same again for ever."""
RATE = 1_000
"""Events a second that departments publish while only workers are killed: a year of a district in some minutes."""


@dataclass(frozen=True, slots=True)
class Part:
    """``text`` and ``target`` as the report prints them; ``run`` takes how many, a seed, and whom to tell; ``done``
    names the figure that says how many were done (without one: as many as were asked for).
    """

    text: str
    target: str
    run: Callable[[int, int, Tell], dict[str, Any]]
    done: str = ""


def killed(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` kills of every kind of process: at every failpoint as often as ``AT_FAILPOINTS`` gives, else from
    outside.
    """
    figures = rounds("kill -9", count, ROUND, seed, tell, kill_round, beside=2)
    by = figures.get("by", {})
    never = [place for place in failpoints.NAMES if place not in by]
    least = min(by.get(place, 0) for place in failpoints.NAMES)
    recovered = figures.get("recovery_s", {}).get("p95", RECOVERY_TARGET_S) < RECOVERY_TARGET_S
    often = least >= count // KILLS_A_TIME
    return {**figures, "failpoints_never_reached": never, "least_at_a_failpoint": least,
            "met": figures["clean"] and recovered and not never and often}  # fmt: skip


def kill_round(count: int, seed: int) -> dict[str, Any]:
    """One round of ``killed``. It mostly waits for failpoints, so that two fit beside each other."""
    times = math.ceil(AT_FAILPOINTS * count / len(failpoints.NAMES)) if count >= len(failpoints.NAMES) else 0

    def strike(made: Stage) -> dict[str, Any]:
        made.rate = FLOW
        return kills(made, count, times)

    return judged(strike, seed, CASES_A_KILL * count)


def workers_killed(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` kills of workers alone, at random moments spread over a year of ``EVENTS_A_KILL`` events for each."""

    def one(n: int, seed: int) -> dict[str, Any]:
        def strike(made: Stage) -> dict[str, Any]:
            made.rate = RATE
            return kills(made, n, 0, kinds=("worker",))

        return judged(strike, seed, round(n * EVENTS_A_KILL / EVENTS_OF_A_CASE))

    figures = rounds("kill -9 of workers", count, count, seed, tell, one)
    slowest = figures.get("recovery_s", {}).get("max", RECOVERY_TARGET_S)
    return {**figures, "met": figures["clean"] and slowest < RECOVERY_TARGET_S}


def zombied(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` workers stopped past their session."""

    def one(n: int, seed: int) -> dict[str, Any]:
        return judged(lambda made: zombies(made, n), seed, CASES_A_ZOMBIE * n, names=tuple(KINDS))

    return rounds("zombies", count, 40, seed, tell, one)


def brokers_struck(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` blows against brokers of three."""

    def one(n: int, seed: int) -> dict[str, Any]:
        ways = list(islice(cycle(STRIKES), n))
        return judged(lambda made: brokers(made, ways), seed, CASES_A_BROKER * n, BROKERS)

    return rounds("brokers", count, 40, seed, tell, one)


def logs_lost(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` losses of a single broker."""

    def one(n: int, seed: int) -> dict[str, Any]:
        ways = list(islice(cycle(WAYS), n))
        return judged(lambda made: cuts(made, ways), seed, CASES_A_CUT * n)

    return rounds("lost logs", count, 25, seed, tell, one)


def rolled(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` rolling upgrades, each on a bus of its own."""
    return rounds("upgrades", count, 1, seed, tell, lambda _, seed: judged(upgraded, seed, CASES_OF_AN_UPGRADE))


def planted(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """The first ``count`` planted bugs, three at a time: most of it is waiting. If all, what provokes them too, without
    a bug.
    """
    sound = list(SOUND) if count >= len(BUGS) else []
    names = [*list(BUGS)[:count], *sound]
    bites: list[Bite] = []
    tell("planted bugs", 0, len(names))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        for done in processes.map(bitten, names, repeat(seed)):
            bites.append(done)
            tell("planted bugs", len(bites), len(names))
    bugs, others = bites[: len(names) - len(sound)], bites[len(names) - len(sound) :]
    caught = sum(b.caught for b in bugs)
    said = {b.name: {"text": BUGS[b.name].text, "caught": b.caught, "how": b.how} for b in bugs}
    wrong = [f"{b.name}: {b.how}" for b in others if b.caught]
    well = caught == len(bugs) and not wrong
    return {"planted": len(bugs), "caught": caught, "bugs": said, "without_a_bug": len(others), "wrong": wrong,
            "clean": well, "met": well}  # fmt: skip


def bitten(name: str, seed: int) -> Bite:
    """``bite`` in a process and a directory of its own; given up after ``GIVE_UP_S``, which counts as stalled."""

    def give_up(*_: object) -> None:
        raise Stalled(f"no end after {GIVE_UP_S} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(GIVE_UP_S)
    try:
        with scratch() as home:
            return bite(home, name, seed)
    finally:
        signal.alarm(0)


PARTS: Mapping[str, Part] = {
    "kills": Part(
        f"kill -9 at {len(failpoints.NAMES)} failpoints and at random moments of {len(USUAL)} processes",
        "0 lost, 0 doubled; recovery p95 under 10 s; of 1,000 each failpoint 20", killed, "kills",
    ),
    "workers": Part(
        "kill -9 of workers at random moments of a year that flows at 1,000 events a second",
        "0 lost, 0 doubled; each recovery under 10 s", workers_killed, "kills",
    ),
    "seeds": Part(
        "deterministic simulation: one seed decides every turn",
        "0 lost, 0 doubled, every kind of fault drawn; 10,000 seeds under 10 minutes", simulated,
    ),
    "zombies": Part("workers stopped past their session timeout", "0 stale effects", zombied, "zombies"),
    "brokers": Part(
        "one broker of three killed or stopped past its session, every tenth time two",
        "0 acknowledged events lost, no false success", brokers_struck, "cycles",
    ),
    "logs": Part(
        "a single broker loses acknowledged records: torn logs, topics made again, damaged batches",
        "every loss noticed, found and sent again; 0 lost, 0 doubled", logs_lost, "cycles",
    ),
    "upgrades": Part(
        "rolling upgrade: old and new schema, old and new workers", "nothing refused, 0 lost, 0 doubled", rolled,
        "upgrades",
    ),
    "poison": Part(
        "records that no department would send, among good ones", "dead-letter count exact, no crash", poison.run,
        "payloads",
    ),
    "database": Part(
        "PostgreSQL killed, read-only, out of connections, disk full", "0 lost, 0 doubled, all wait", database.run,
        "faults_made",
    ),
    "network": Part(
        "the network cut, half open, refused, flapping", "0 lost, 0 doubled, all wait", network.run, "faults_made"
    ),
    "province": Part(
        "a province that is slow, refuses, answers twice or late, or lies",
        "0 lost, 0 doubled; the worker's p99 grows less than 10 %", province.run, "faults_made",
    ),
    "soak": Part(
        "ordinary load for long", "memory under 1 MB/h per process, handles flat, one hour", soak.run, "minutes"
    ),
    "planted": Part("planted bugs, real processes", "every one caught, nothing without one", planted, "planted"),
}  # fmt: skip
