"""Many seeds on all cores: each process has a PostgreSQL database of its own, all of one server without durability.

A seed is what it is only with Python's hashes fixed, so seeds run in processes that have them fixed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from connectors.local.postgres import Postgres

FIXED = {"PYTHONHASHSEED": "0", "RUST_BACKTRACE": "0"}
REGRESSIONS = Path(__file__).parent / "regressions.txt"
Heard = Callable[[dict[str, Any]], None]


@dataclass
class Result:
    """What many seeds came to."""

    ran: int = 0
    failed: dict[int, list[str]] = field(default_factory=dict)
    happened: dict[str, int] = field(default_factory=dict)

    def hear(self, line: dict[str, Any]) -> None:
        """One seed more."""
        self.ran += 1
        if line["complaints"]:
            self.failed[line["seed"]] = line["complaints"]
        for kind, count in line["happened"].items():
            self.happened[kind] = self.happened.get(kind, 0) + count

    def count(self, kind: str) -> int:
        """Complaints of one kind: lost, doubled, phantom, wrong, order."""
        return sum(c.startswith(f"{kind}:") for complaints in self.failed.values() for c in complaints)


def regressions() -> list[int]:
    """Seeds that once failed; they run in every test."""
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@contextmanager
def server() -> Iterator[Postgres]:
    """A PostgreSQL for simulations only; gone afterwards."""
    from govbus.chaos.sim.database import SETTINGS
    from streams.store import migrate

    with tempfile.TemporaryDirectory(prefix="govbus-sim-") as directory:
        Path(directory).chmod(0o711)
        with Postgres(Path(directory) / "postgres", tied=True, settings=SETTINGS) as made:
            migrate.upgrade(made.create("template"))
            yield made


def run(first: int, count: int, heard: Heard, processes: int = 0) -> None:
    """Run ``count`` seeds from ``first``; ``heard`` gets each outcome as it comes, from any thread, one at a time."""
    several = min(processes or os.cpu_count() or 1, count)
    lock = threading.Lock()

    def hear(line: dict[str, Any]) -> None:
        with lock:
            heard(line)

    with server() as made:
        shares = [(first + n, len(range(n, count, several))) for n in range(several)]
        work = [
            threading.Thread(target=batch, args=(made, f"sim_{n}", *share, several, "nothing", hear))
            for n, share in enumerate(shares)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()


def simulated(count: int, seed: int, tell: Callable[[str, int, int], None]) -> dict[str, Any]:
    """``count`` seeds from ``seed`` on all cores, as a part of ``govbus chaos``."""
    result, began = Result(), monotonic()

    def hear(line: dict[str, Any]) -> None:
        result.hear(line)
        tell("simulation", result.ran, count)

    tell("simulation", 0, count)
    run(seed, count, hear)
    failed = sorted(result.failed)
    return {
        "seeds": result.ran, "first_seed": seed, "failed_seeds": failed,
        "lost": result.count("lost"), "doubled": result.count("doubled"),
        "faults": [f"seed {s}: {text}" for s in failed[:10] for text in result.failed[s][:3]],
        "again": [f"govbus chaos --seeds 1 --first-seed {s}" for s in failed[:10]],
        "happened": result.happened, "seconds": round(monotonic() - began, 1),
        "clean": result.ran == count and not failed, "met": result.ran == count and not failed,
    }  # fmt: skip


def batch(
    made: Postgres, database: str, first: int, count: int, step: int = 1, planted: str = "nothing",
    heard: Heard = lambda _: None,
) -> Result:  # fmt: skip
    """Every ``step``-th seed from ``first`` in one process; with a bug ``planted`` until it is caught."""
    url = made.create(database, template="template")
    command = [sys.executable, "-m", "govbus.chaos.sim", "--url", url, "--first", str(first), "--count", str(count)]
    command += ["--step", str(step), "--planted", planted]
    result = Result()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | FIXED) as process,
    ):
        for text in process.stdout or ():
            line = json.loads(text)
            result.hear(line)
            heard(line)
        if process.wait():
            errors.seek(0)
            why = f"wrong: {errors.read()[-2000:]}"
            line = {"seed": first + result.ran * step, "complaints": [why], "happened": {}}
            result.hear(line)
            heard(line)
    made.drop(database)
    return result
