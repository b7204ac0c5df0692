"""Measures real worker processes: from records in Kafka to committed, deduplicated, folded SQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from bench.process import must_live, python, running
from bench.stand import Stand, cpu_of
from schemas.errors import GovbusError
from schemas.topics import Topic
from streams.store.engine import connect
from streams.store.tables import cursor
from streams.store.unfit import HALVED

POLL_S = 0.05
PATIENCE_S = 120.0
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """``count`` records of ``topics`` to be applied. ``unsettled``: SQL that is true while something that follows from
    them is still to be done (empty: nothing is). ``check`` raises if the database does not hold what it must;
    ``sizes`` are taken once all is committed, and again when nothing is left to do.
    """

    topics: Sequence[Topic]
    count: int
    check: Callable[[sa.Engine], None]
    unsettled: str = ""
    arguments: Sequence[str] = ()
    sizes: Callable[[sa.Engine], Mapping[str, float]] = lambda _: {}


@dataclass
class Workers:
    """Running worker processes: whether they live, what they use."""

    children: list[tuple[Any, Path]] = field(default_factory=list)
    peak: int = 0

    def must_live(self) -> None:
        """Raise if one has ended; takes note of their memory."""
        for child, log in self.children:
            must_live(child, log)
        self.peak = max(self.peak, sum(_memory(child.pid) for child, _ in self.children))

    def must_not_halve(self) -> None:
        """Raise if a worker could not apply its chunks whole: it comes to the same result, many times slower."""
        for _, log in self.children:
            if found := next((line for line in log.read_text(errors="replace").splitlines() if HALVED in line), ""):
                raise GovbusError(f"measured nothing: {found}")

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(cpu_of(child.pid) for child, _ in self.children)


def start(
    stand: Stand,
    url: str,
    home: Path,
    stack: ExitStack,
    number: int = 1,
    arguments: Sequence[str] = (),
    module: Sequence[str] = ("streams",),
) -> Workers:
    """``number`` workers (``python -m`` ``module``) on ``url``, stopped when ``stack`` is closed, which
    raises ``GovbusError`` if one had to halve a chunk.
    """
    workers = Workers()
    stack.callback(workers.must_not_halve)
    for n in range(1, number + 1):
        place = home / f"worker-{n}"
        place.mkdir(parents=True, exist_ok=True)
        words = ["--kafka", stand.kafka, "--database-url", url, "--home", str(place), "--name", f"bench-{n}"]
        log = place / "worker.log"
        workers.children.append((stack.enter_context(running(python(*module, *words, *arguments), log)), log))
    return workers


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment (``time.monotonic``): how many records were committed by then, and what had been used."""

    at: float
    done: int
    used: Mapping[str, float]

    def since(self, before: Mark, count: int, suffix: str = "") -> dict[str, float]:
        """What each of ``count`` events has cost since ``before``: microseconds of CPU by process, bytes of WAL."""
        return {f"{name}{suffix}": (self.used[name] - before.used[name]) / count for name in self.used}


def measure(
    stand: Stand, url: str, work: Work, home: Path, tell: Callable[[int], None], number: int = 1
) -> dict[str, float]:
    """Let ``number`` fresh workers apply ``work`` to the database at ``url``.

    ``rate`` (events a second) is taken from the first commit that is seen to the last (the same as ``rate_from_start``
    if one commit took all), ``rate_from_start`` from the start of the processes, ``rate_settled`` until nothing that
    follows is left to do. CPU (microseconds) and write-ahead log (bytes) are those of one event between these moments;
    memory and sizes are those of the last commit, ``_settled`` those of the end.
    Raises ``GovbusError`` if SQL does not hold what it must.
    """
    engine = connect(url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        before = committed(engine, work.topics)
        workers = start(stand, url, home, stack, number, work.arguments)

        def mark(at: float, done: int) -> Mark:
            used = {f"{name}_cpu_us": 1e6 * s for name, s in {"worker": workers.cpu(), **stand.cpu()}.items()}
            return Mark(at, done - before, {**used, "wal_bytes": _written(engine)})

        started = mark(time.monotonic(), before)
        first = mark(*wait(engine, work, before + 1, workers, tell, before))
        last = mark(*wait(engine, work, before + work.count, workers, tell, before))
        sizes, settled = _sizes(engine, work, workers), None
        if work.unsettled:
            settled = mark(_settle(engine, work, workers), before + work.count)
            sizes |= _sizes(engine, work, workers, "_settled")
        work.check(engine)
    return {**_rates(work, started, first, last, settled), **sizes}


def _rates(work: Work, started: Mark, first: Mark, last: Mark, settled: Mark | None) -> dict[str, float]:
    since = started if first.done >= work.count else first
    count = work.count - since.done
    found = {
        "rate": count / (last.at - since.at),
        "rate_from_start": work.count / (last.at - started.at),
        **last.since(since, count),
    }
    if settled:
        found["rate_settled"] = count / (settled.at - since.at)
        found |= settled.since(since, count, "_settled")
    return found


def wait(
    engine: sa.Engine, work: Work, wanted: int, workers: Workers, tell: Callable[[int], None], before: int = 0
) -> tuple[float, int]:
    """When at least ``wanted`` records are committed, and how many then; gives up if nothing moves for long."""
    moved, seen = time.monotonic(), -1
    while True:
        done = committed(engine, work.topics)
        tell(done - before)
        if done >= wanted:
            return time.monotonic(), done
        if done != seen:
            moved, seen = time.monotonic(), done
        if time.monotonic() - moved > PATIENCE_S:
            raise GovbusError(f"the worker stands at {done} of {wanted} records")
        workers.must_live()
        time.sleep(POLL_S)


def committed(engine: sa.Engine, topics: Sequence[Topic]) -> int:
    """How many records of ``topics`` the cursors have passed."""
    names = [t.name for t in topics]
    query = sa.select(sa.func.coalesce(sa.func.sum(cursor.c.next_offset), 0)).where(cursor.c.topic.in_(names))
    with engine.connect() as tx:
        return int(tx.execute(query).scalar_one())


def behind(engine: sa.Engine, topic: Topic, ends: Mapping[int, int]) -> int:
    """How many records below ``ends`` the cursors have not passed."""
    query = sa.select(cursor.c.partition, cursor.c.next_offset).where(cursor.c.topic == topic.name)
    with engine.connect() as tx:
        at: dict[int, int] = dict(tx.execute(query).tuples().all())
    return sum(max(0, end - at.get(partition, 0)) for partition, end in ends.items())


def _settle(engine: sa.Engine, work: Work, workers: Workers) -> float:
    """When nothing that follows is left to do."""
    deadline = time.monotonic() + 10 * PATIENCE_S
    while ask(engine, work.unsettled):
        if time.monotonic() > deadline:
            raise GovbusError("the worker applied everything, but what follows from it does not end")
        workers.must_live()
        time.sleep(POLL_S)
    return time.monotonic()


def ask(engine: sa.Engine, query: str) -> Any:
    """The single value of a query."""
    with engine.connect() as tx:
        return tx.execute(sa.text(query)).scalar_one()


def _written(engine: sa.Engine) -> float:
    """Bytes of write-ahead log so far: what PostgreSQL must bring to the disk."""
    return float(ask(engine, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


def _sizes(engine: sa.Engine, work: Work, workers: Workers, suffix: str = "") -> dict[str, float]:
    """The workers' greatest memory and the database's size so far, and what ``work`` asks."""
    size = int(ask(engine, "SELECT pg_database_size(current_database())"))
    found = {"worker_mb": workers.peak / MB, "database_mb": size / MB, **work.sizes(engine)}
    return {f"{name}{suffix}": value for name, value in found.items()}


def _memory(pid: int) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).memory_info().rss)
    return 0
