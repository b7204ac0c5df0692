"""The benchmarks by name; ``govbus bench`` knows no others."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from bench.given import Given


@dataclass(frozen=True, slots=True)
class Bench:
    """``module`` has ``run(given)``; ``share`` and ``most_rounds``: how many of ``--events`` it
    takes, and how many rounds at most, in ``bench all``.
    """

    name: str
    says: str
    share: float = 1.0
    most_rounds: int = 5

    def run(self, given: Given) -> dict[str, Any]:
        """Its report."""
        found: dict[str, Any] = importlib.import_module(f"bench.{self.name}").run(given)
        return found


BENCHES = (
    Bench("ratings", "Ratings to counted SQL, against peers and the limits"),
    Bench("cases", "Cases through the state machine and the clocks"),
    Bench("licences", "Backfill of a stock of licences"),
    Bench("publishing", "Rows validated and stored with a receipt, then carried to Kafka", 0.1),
    Bench("replay", "Everything in the log into an empty database", 1.0, 3),
    Bench("timers", "The sweep over open clocks", 1.0, 2),
    Bench("latency", "From Kafka's acknowledgement of a bad rating to its alert", 0.3, 3),
    Bench("recovery", "kill -9 of the worker until lag 0", 0.1, 3),
    Bench("idle", "What a bus costs that has nothing to do", 1.0, 3),
    Bench("growth", "Ten times the events against a tenth of them", 10.0, 2),
    Bench("workers", "Two workers against one, and a plan for eight", 1.0),
)
BY_NAME = {bench.name: bench for bench in BENCHES}
