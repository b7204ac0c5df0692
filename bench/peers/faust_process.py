"""Runs the stock Faust agent and takes its rate from what it prints."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from bench.process import must_live, python

LONGEST_S = 90.0


def measure(kafka: str, count: int, home: Path) -> dict[str, float]:
    """Ratings a second that a fresh stock agent puts into its table, over ``count`` ratings or 90 seconds."""
    name = f"stock-{uuid.uuid4().hex[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    log = home / "stock.log"
    arguments = ["--kafka", kafka, "--name", name, "--datadir", str(home / name)]
    with python("bench.peers.stock_faust", arguments, log, piped=True) as child:
        assert child.stdout is not None
        first: tuple[int, float] | None = None
        began = time.monotonic()
        for line in child.stdout:
            if '{"n"' not in line:  # Faust's spinner writes to the terminal as it likes
                continue
            told = json.loads(line[line.index('{"n"') :])
            if first is None and told["n"]:
                first = (told["n"], told["at"])
            elif first and (told["n"] >= count or time.monotonic() - began > LONGEST_S):
                return {"rate": (told["n"] - first[0]) / (told["at"] - first[1]), "events": told["n"]}
        must_live(child, log)
    raise AssertionError("unreachable: a child without output has ended")
