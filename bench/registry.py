"""The benchmarks by name; ``govbus bench`` knows no others."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from bench.given import Given


@dataclass(frozen=True, slots=True)
class Bench:
    """``module`` has ``run(given)``; ``share``: how many of ``--events`` it takes in ``bench all``."""

    name: str
    says: str
    share: float = 1.0

    def run(self, given: Given) -> dict[str, Any]:
        """Its report."""
        found: dict[str, Any] = importlib.import_module(f"bench.{self.name}").run(given)
        return found


BENCHES = (
    Bench("ratings", "Ratings to counted SQL, against five peers and the limits"),
)
BY_NAME = {bench.name: bench for bench in BENCHES}
