"""Rounds of a part that judges a whole bus: set up, strike, let it settle, ask the oracle; and their sum.

Decides no fault. Rounds are small, so that what is wrong is found early and its seed makes it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from govbus.chaos.fleet import USUAL
from govbus.chaos.ground import ground, scratch
from govbus.chaos.stage import Stage, percentile, stage
from govbus.chaos.watch import Stalled

Strike = Callable[[Stage], dict[str, Any]]
"""What a round does; its figures are numbers, lists and dicts of such, which add up over rounds."""
Tell = Callable[[str, int, int], None]
One = Callable[[int, int], dict[str, Any]]
"""A round of so many, with a seed."""
STALLED = "stalled: "
UNJUDGED = "the oracle did not judge"
"""A verdict that begins so is not well, and catches no planted bug either."""


def judged(
    strike: Strike, seed: int, cases: int, brokers: int = 1, names: Sequence[str] = USUAL
) -> dict[str, Any]:
    """The figures of ``strike`` on a bus of ``brokers`` and the processes ``names`` with a year of ``cases``, and what
    the oracle found.
    """
    with scratch() as home, ground(home, brokers) as bus, stage(bus, seed, cases, names=names) as made:
        figures: dict[str, Any] = {}
        try:
            figures = strike(made)
            verdict = made.finish()
        except Stalled as error:
            verdict = stalled(error)
        recovered = [s for kind in made.recoveries().values() for s in kind if math.isfinite(s)]
        return {
            **figures, **told(verdict, seed), "seeds": [seed],
            "ended_by_themselves": len(made.ends), "recovery": recovered,
        }  # fmt: skip


def stalled(error: Stalled) -> dict[str, Any]:
    """The verdict on a bus that never settled: what it has not done counts as lost."""
    return {"shown": {"lost": [f"{STALLED}{error}"]}}


def told(verdict: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Of the oracle's verdict what the report shows: ``faults`` are its sentences and what kept it from judging."""
    texts = [text for shown in verdict["shown"].values() for text in shown]
    texts += [f"{UNJUDGED}: {verdict['failed']}"] if verdict.get("failed") else []
    counts = verdict.get("counts", {})
    return {
        "events": verdict.get("ledgers", {}).get("accepted", 0), "lost": counts.get("lost", 0),
        "doubled": counts.get("doubled", 0), "faults": [f"seed {seed}: {text}" for text in texts],
    }  # fmt: skip


def rounds(
    name: str, count: int, most: int, seed: int, tell: Tell, one: One, beside: int = 1
) -> dict[str, Any]:
    """The sum of rounds ``one(how many, seed)`` that make ``count`` together, ``most`` in each; Ctrl-C keeps what is
    done. ``beside`` rounds at a time, each in a process of its own: ``one`` must be a function of a module then.
    """
    total: dict[str, Any] = {}
    sizes = [min(most, count - done) for done in range(0, count, most)]
    tell(name, 0, count)
    try:
        for number, figures in enumerate(_made(one, sizes, seed, beside), 1):
            total = added(total, figures)
            tell(name, sum(sizes[:number]), count)
    except KeyboardInterrupt:
        if not total:
            raise
        return {**judgement(total), "interrupted": True}
    return judgement(total)


def _made(one: One, sizes: Sequence[int], seed: int, beside: int) -> Iterator[dict[str, Any]]:
    seeds = range(seed, seed + len(sizes))
    if beside == 1:
        yield from map(one, sizes, seeds)
    else:
        with ProcessPoolExecutor(beside, mp_context=get_context("spawn")) as processes:
            yield from processes.map(one, sizes, seeds)


def added(one: Any, other: Any) -> Any:
    """Figures of two rounds together: numbers and lists add up, dicts key by key."""
    if not isinstance(one, dict):
        return one + other
    both = {key: added(one[key], other[key]) for key in one.keys() & other.keys()}
    return {**one, **other, **both}


def judgement(total: dict[str, Any]) -> dict[str, Any]:
    """``total`` with what people ask for: seconds a cycle, recovery, and whether all is well. Anything in ``faults``
    or ``wrong`` is not well.
    """
    seconds, recovery = total.pop("seconds", {}), sorted(total.pop("recovery", []))
    clean = not total["faults"] and not total.get("wrong")
    by = {"by": {way: len(found) for way, found in seconds.items()},
          "seconds_a_cycle": {way: round(sum(found) / len(found), 1) for way, found in seconds.items()}}  # fmt: skip
    shown = {"p50": percentile(recovery, 0.5), "p95": percentile(recovery, 0.95), "max": max(recovery, default=0.0)}
    return {**total, **(by if seconds else {}), **({"recovery_s": shown} if recovery else {}), "clean": clean,
            "met": clean}  # fmt: skip
