"""``govbus bench ratings``: Avro ratings in Kafka to deduplicated, rolled-up SQL, beside a stock Faust
agent and the limits.

Decides what is measured after what; every round measures all of them one after another on the same records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import limits, load, ours
from bench.measure import Round, Target, report
from bench.peers import faust_process
from connectors import topics_admin
from connectors.local.broker import Broker
from connectors.local.postgres import Postgres
from schemas.topics import RATING
from streams.store import migrate

DATABASE = "bench"
HEAP_MB = 1024
PEER_EVENTS = 60_000  # at its pace 20 s; ours takes that long for all
LIMIT_EVENTS = 300_000
TARGETS = (
    Target("ours >= 60,000 ev/s", "rate", 60_000),
    Target("ours >= 15 x stock Faust with a table", "rate", 15, peer="stock_faust"),
)
Tell = Callable[[str, int, int], None]


def run(count: int, rounds: int, tell: Tell) -> dict[str, Any]:
    """The report of ``rounds`` rounds over ``count`` ratings. ``tell(step, done, of)`` is called as it
    goes on.

    ``rate`` is without single ratings for the province, ``rate_with_uploads`` with them (an outbox row each).
    """
    with tempfile.TemporaryDirectory(prefix="govbus-bench-") as directory:
        home = Path(directory)
        home.chmod(0o711)  # PostgreSQL's own user must be able to enter
        with (
            Broker(home / "kafka", heap_mb=HEAP_MB, tied=True) as kafka,
            Postgres(home / "postgres", tied=True) as server,
        ):
            topics_admin.apply(kafka.bootstrap, replication=1)
            for done in load.fill(kafka.bootstrap, RATING, count):
                tell("fill Kafka", done, count)
            measured = [_round(kafka.bootstrap, server, count, home, n, tell) for n in range(rounds)]
    return report("ratings", measured, "rate", TARGETS, events=count, workers=1)


def _round(kafka: str, server: Postgres, count: int, home: Path, number: int, tell: Tell) -> Round:
    """Ours, the limits, the peer, one after another; with uploads too in the first round alone, for it is long."""
    figures = _ours(kafka, server, count, home / f"ours_{number}", False, tell)
    limits = _limits(kafka, server, min(count, LIMIT_EVENTS), tell)
    if number == 0:
        found = _ours(kafka, server, count, home / "uploads", True, tell)
        figures |= {f"{k}_with_uploads": v for k, v in found.items()}
    some = min(count, PEER_EVENTS)
    tell("stock Faust", 0, some)
    peer = faust_process.measure(kafka, some, home / f"faust_{number}")
    tell("stock Faust", some, some)
    return Round(figures, {"stock_faust": peer}, limits)


def _ours(kafka: str, server: Postgres, count: int, home: Path, uploads: bool, tell: Tell) -> dict[str, float]:
    step = "ours, with uploads" if uploads else "ours"
    url = server.create(DATABASE)
    try:
        return dict(ours.measure(kafka, url, count, home, uploads, lambda n: tell(step, n, count)))
    finally:
        server.drop(DATABASE)


def _limits(kafka: str, server: Postgres, count: int, tell: Tell) -> dict[str, float]:
    url = server.create(DATABASE)
    migrate.upgrade(url)
    tell("limits", 0, 3)
    found = {"consume": limits.consume(kafka, count)}
    tell("limits", 1, 3)
    found["decode"] = limits.decode(kafka, count)
    tell("limits", 2, 3)
    found["copy_with_primary_key"] = limits.copy(url, count)
    tell("limits", 3, 3)
    server.drop(DATABASE)
    return found
