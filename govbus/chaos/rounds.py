"""One round of a part that judges a whole bus: set up, strike, let it settle, ask the oracle. Decides no fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from govbus.chaos.ground import ground, scratch
from govbus.chaos.stage import Stage, stage
from govbus.chaos.watch import Stalled

Strike = Callable[[Stage], dict[str, Any]]


def judged(strike: Strike, seed: int, cases: int, brokers: int = 1) -> dict[str, Any]:
    """The figures of ``strike`` on a bus of ``brokers`` with a year of ``cases``, and what the oracle found."""
    with scratch() as home, ground(home, brokers) as bus, stage(bus, seed, cases) as made:
        figures: dict[str, Any] = {}
        try:
            figures = strike(made)
            verdict = made.finish()
        except Stalled as error:
            verdict = {"shown": {"lost": [f"stalled: {error}"]}}
        found = [f"seed {seed}: {text}" for texts in verdict["shown"].values() for text in texts]
        found += [f"seed {seed}: {verdict['failed']}"] if verdict.get("failed") else []
        return {**figures, "seed": seed, "events": verdict.get("ledgers", {}).get("accepted", 0), "faults": found,
                "ended_by_themselves": len(made.ends), "clean": not found, "met": not found}  # fmt: skip
