"""Many seeds on all cores: each process has a PostgreSQL database of its own, all of one server without durability.

A seed is what it is only with Python's hashes fixed, so seeds run in processes that have them fixed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any

import sqlalchemy as sa

from connectors.local.postgres import Postgres
from govbus.chaos.sim.kinds import KINDS

FIXED = {"PYTHONHASHSEED": "0", "RUST_BACKTRACE": "0", "POLARS_MAX_THREADS": "1"}
REGRESSIONS = Path(__file__).parent / "regressions.txt"
ENOUGH = 100
"""Of so many seeds it is expected that every kind of fault was drawn."""
LIMIT_S = 600.0
"""The target for 10,000 seeds."""
Line = dict[str, Any]
Heard = Callable[[Line], None]
Work = tuple[int, str]
"""A seed, and the name of the bug that is planted while it runs."""


@dataclass
class Result:
    """What many seeds came to."""

    ran: int = 0
    failed: dict[int, list[str]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """``happened``: faults by kind; ``reached``: durable steps; ``killed_after``: kills by the step before."""
    traces: dict[int, str] = field(default_factory=dict)

    def hear(self, line: Line) -> None:
        """One seed more."""
        self.ran += 1
        if line["complaints"]:
            self.failed[line["seed"]] = line["complaints"]
        for name in ("happened", "reached", "killed_after"):
            self.counts[name].update(line.get(name, {}))
        self.traces[line["seed"]] = line.get("trace", "")

    def complaints(self, kind: str) -> int:
        """How many of one kind: lost, doubled, phantom, wrong, order."""
        return sum(c.startswith(f"{kind}:") for complaints in self.failed.values() for c in complaints)

    @property
    def never_drawn(self) -> list[str]:
        """Kinds of faults that did not occur."""
        return [kind for kind in KINDS if not self.counts["happened"][kind]]

    @property
    def fingerprint(self) -> str:
        """Of every turn of every seed; the same seeds give the same."""
        return hashlib.blake2b(repr(sorted(self.traces.items())).encode(), digest_size=8).hexdigest()

    def per_100(self, name: str) -> dict[str, float]:
        """How often something occurred in a hundred seeds."""
        found = self.counts[name]
        kinds = KINDS if name == "happened" else sorted(found)
        return {kind: round(100 * found[kind] / max(1, self.ran), 1) for kind in kinds}


def regressions() -> list[int]:
    """Seeds that once failed; they run in every test."""
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@contextmanager
def server() -> Iterator[Postgres]:
    """A PostgreSQL for simulations only; gone afterwards."""
    from govbus.chaos.sim.database import SETTINGS, forget_soon
    from streams.store import migrate

    with tempfile.TemporaryDirectory(prefix="govbus-sim-") as directory:
        Path(directory).chmod(0o711)
        sockets = Path(directory) / "sockets"
        sockets.mkdir()
        sockets.chmod(0o777)  # the server may be another user than we are
        settings = {**SETTINGS, "unix_socket_directories": str(sockets)}
        with Postgres(Path(directory) / "postgres", tied=True, settings=settings) as made:
            template = made.create("template")
            migrate.upgrade(template)
            forget_soon(template)
            yield made


def run(first: int, count: int, heard: Heard, planted: str = "nothing", processes: int = 0) -> None:
    """Run ``count`` seeds from ``first``; ``heard`` gets each outcome as it comes, from any thread, one at a time."""
    several = min(processes or os.cpu_count() or 1, count)
    lock = threading.Lock()

    def hear(line: Line) -> None:
        with lock:
            heard(line)

    with server() as made:
        shares = [[(seed, planted) for seed in range(first + n, first + count, several)] for n in range(several)]
        work = [
            threading.Thread(target=batch, args=(made, f"sim_{n}", share, hear)) for n, share in enumerate(shares)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()


def simulated(count: int, seed: int, tell: Callable[[str, int, int], None], planted: str = "nothing") -> dict[str, Any]:
    """``count`` seeds from ``seed`` on all cores, as a part of ``govbus chaos``."""
    result, began = Result(), monotonic()

    def hear(line: Line) -> None:
        result.hear(line)
        tell("simulation", result.ran, count)

    tell("simulation", 0, count)
    run(seed, count, hear, planted)
    failed, seconds = sorted(result.failed), monotonic() - began
    clean = result.ran == count and not failed and (count < ENOUGH or not result.never_drawn)
    return {
        "seeds": result.ran, "first_seed": seed, "failed_seeds": failed,
        "lost": result.complaints("lost"), "doubled": result.complaints("doubled"),
        "faults": [f"seed {s}: {text}" for s in failed[:10] for text in result.failed[s][:3]],
        "again": [f"govbus chaos --seeds 1 --first-seed {s}" for s in failed[:10]],
        "never_drawn": result.never_drawn, "happened_per_100_seeds": result.per_100("happened"),
        "durable_steps_per_100_seeds": result.per_100("reached"),
        "kills_after_per_100_seeds": result.per_100("killed_after"),
        "fingerprint": result.fingerprint, "seconds": round(seconds, 1), "clean": clean,
        "met": clean and seconds < LIMIT_S,
    }  # fmt: skip


def batch(made: Postgres, database: str, work: Sequence[Work], heard: Heard = lambda _: None) -> list[Line]:
    """Run ``work`` in order in one process; the outcomes. If the process ends early, that is the last one."""
    url = _by_socket(made, made.create(database, template="template"))
    lines: list[Line] = []

    def hear(line: Line) -> None:
        lines.append(line)
        heard(line)

    command = [sys.executable, "-m", "govbus.chaos.sim", "--url", url]
    with (
        tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as errors,
        _begun(command, asked, work, errors) as process,
    ):  # fmt: skip
        for text in process.stdout or ():
            hear(json.loads(text))
        if process.wait():
            errors.seek(0)
            seed, bug = work[min(len(lines), len(work) - 1)]
            hear({"seed": seed, "planted": bug, "complaints": [f"wrong: {errors.read()[-2000:]}"]})
    made.drop(database)
    return lines


def _by_socket(made: Postgres, url: str) -> str:
    """``url`` without TCP, which costs a tenth of a round trip."""
    there = {"host": str(made.directory.parent / "sockets"), "port": str(made.port)}
    return sa.make_url(url).set(host=None, port=None, query=there).render_as_string(hide_password=False)


def _begun(command: list[str], asked: IO[str], work: Sequence[Work], errors: IO[str]) -> subprocess.Popen[str]:
    json.dump(work, asked)
    asked.seek(0)
    env = os.environ | FIXED
    return subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
