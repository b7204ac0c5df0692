"""PostgreSQL under the simulation: real, but every statement and every commit is a place where others take their turn,
and where a connection may break.

A strand that holds a lock may be paused for long, so whoever wants the lock gets an error at once instead of waiting
(``lock_timeout``); the product's own patience brings it back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, cast

import psycopg
import sqlalchemy as sa
from psycopg import _cursor_base, generators
from psycopg._preparing import PrepareManager
from psycopg.pq import ExecStatus

from govbus.chaos.sim.kinds import BROKEN, BROKEN_BEFORE, UNANSWERED
from govbus.chaos.sim.schedule import current, note, pause, reach
from streams.store.tables import metadata

LOCK_TIMEOUT_MS = 1
CONNECTIONS = 60
OPTIONS = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c timezone=UTC -c client_encoding=UTF8 -c synchronous_commit=off"
SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off",
    "wal_level": "minimal", "max_wal_senders": "0", "shared_buffers": "64MB", "track_counts": "off",
    "track_activities": "off", "update_process_title": "off",
}  # fmt: skip
"""Of a server that only simulations use: durability is not what is tested here."""
TRUNCATE_EVERY = 100


STIRS = {"outbox": "pg_notify", "push_queue": "INSERT INTO push_queue"}
"""What a statement says that gives somebody something to do."""
_STREAMS = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH, ExecStatus.PIPELINE_SYNC)
_WRITES = re.compile(r'(?:INSERT INTO|(?<!FOR )UPDATE|DELETE FROM|COPY) "?(\w+)')


@dataclass(frozen=True, slots=True)
class Deed:
    """What a statement does, as far as the simulation cares."""

    locks: bool
    """A lock of the session may be held afterwards: the pool must not keep that."""
    stirs: tuple[str, ...]
    writes: str
    """The first table that it writes, "" if it only reads."""


@lru_cache(maxsize=4096)
def _deed(query: str | bytes) -> Deed:
    text = query.decode() if isinstance(query, bytes) else query
    found = _WRITES.search(text)
    stirs = tuple(what for what, words in STIRS.items() if words in text)
    return Deed("pg_try_advisory_lock" in text, stirs, found[1] if found else "")


def _wait_there(pgconn: Any) -> Generator[Any, Any, list[Any]]:
    """In place of psycopg's own way to wait for results, which serves threads: here nobody else could use the time."""
    while pgconn.flush():
        pass
    results = []
    while (result := pgconn.get_result()) is not None:
        results.append(result)
        if result.status in _STREAMS:
            break
    return results
    yield


class Weather:
    """What the database does to its clients by chance."""

    def rain(self) -> bool:
        """Asked before each statement and commit: does the connection break?"""
        return False

    def unanswered(self) -> bool:
        """Asked where a commit breaks: did it come to pass?"""
        return False


class Cursor(psycopg.Cursor[Any]):
    """Others take their turn before every statement."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As psycopg does, after a pause."""
        deed = self._meet(query)
        found = super().execute(query, *args, **kwargs)
        if deed.writes and self.connection.autocommit:
            reach("after a durable step", deed.writes)
        return found

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        """As psycopg does, after a pause."""
        self._meet(query)
        super().executemany(query, *args, **kwargs)

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As psycopg does, after a pause."""
        self._meet(statement)
        return super().copy(statement, *args, **kwargs)

    def _meet(self, query: Any) -> Deed:
        pause(amid=True)
        deed = _deed(query if isinstance(query, (str, bytes)) else str(query))
        connection = cast(Connection, self.connection)
        if process := current():
            process.schedule.trace.update(deed.writes.encode() or b"reads")
            if process.breaks == "statement" or Connection.weather.rain():
                process.breaks = ""
                note(BROKEN)
                raise psycopg.OperationalError("the simulated connection broke")
        connection.did(deed)
        return deed


class Statements(PrepareManager):
    """Kept after a rollback too, which is common here: no table is ever made again under another name."""

    prepare_threshold = 2
    prepared_max = 1000

    def clear(self) -> bool:
        """Nothing is forgotten."""
        return False


class Connection(psycopg.Connection[Any]):
    """A connection that is parked instead of closed, for making one costs more than a transaction."""

    weather: ClassVar[Weather] = Weather()
    parked: ClassVar[list[Connection]] = []
    commits: ClassVar[Counter[str]] = Counter()
    """How often something was committed that gives somebody something to do, by ``STIRS``."""
    holds_lock = False
    wrote = ""
    """The first table that this transaction wrote."""

    def did(self, deed: Deed) -> None:
        """Keep in mind what this transaction is about."""
        self.holds_lock |= deed.locks
        self.stirs.update(deed.stirs)
        self.wrote = self.wrote or deed.writes

    def commit(self) -> None:
        """Others take their turn before; the connection may break before, or the answer be lost after."""
        pause(amid=True)
        wrote, self.wrote = self.wrote, ""
        if wrote:
            reach("before a commit", wrote)
        what = self._breaks(bool(wrote))
        if what == "lost":
            super().rollback()  # as the server does when its client is gone
        else:
            super().commit()
            Connection.commits.update(self.stirs)
        self.stirs.clear()
        if what:
            note(UNANSWERED if what == "unknown" else BROKEN_BEFORE)
            raise psycopg.OperationalError("the simulated connection broke in a commit")
        if wrote:
            reach("after a durable step", wrote)

    def _breaks(self, wrote: bool) -> str:
        process = current()
        if process is None:
            return ""
        if wrote and process.breaks in ("lost", "unknown"):
            what, process.breaks = process.breaks, ""
            return what
        if not Connection.weather.rain():
            return ""
        return "unknown" if Connection.weather.unanswered() else "lost"

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Iterator[Any]:  # type: ignore[override]  # noqa: ARG002
        """A commit of somebody who notified ends the wait."""
        before = Connection.commits["outbox"]
        pause(timeout or 0.0, lambda: Connection.commits["outbox"] != before)
        return iter(())

    def rollback(self) -> None:
        """Nothing was stirred."""
        self.stirs.clear()
        self.wrote = ""
        super().rollback()

    @cached_property
    def stirs(self) -> set[str]:
        """What this transaction would give others to do."""
        return set()

    def close(self) -> None:
        """What the server does when a client is gone: roll back, give up session locks."""
        if self.closed:
            return None
        try:
            super().rollback()
            self.wrote, self.autocommit = "", True
            psycopg.Cursor(self).execute("UNLISTEN *; SELECT pg_advisory_unlock_all()")
        except psycopg.OperationalError:  # the server ended it
            return super().close()
        self.autocommit = self.holds_lock = False
        self._notice_handlers.clear()
        return Connection.parked.append(self)


def connect(url: str) -> sa.Engine:
    """An engine on ``url`` for all simulated processes."""
    _cursor_base.execute = generators.execute = _wait_there  # type: ignore[attr-defined]
    where = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def make() -> Any:
        if Connection.parked:
            return Connection.parked.pop()
        context = engine.dialect._psycopg_adapters_map
        made = Connection.connect(where, options=OPTIONS, cursor_factory=Cursor, context=context)
        made._prepared = Statements()
        return made

    engine: Any = sa.create_engine(
        url, creator=make, pool_size=CONNECTIONS, max_overflow=0, pool_use_lifo=True, hide_parameters=True
    )
    sa.event.listen(engine, "checkin", _give_up_locks)
    checked: sa.Engine = engine
    return checked


def _give_up_locks(connection: Connection | None, _record: Any) -> None:
    """A process that died has left its connection to the pool: its locks end with it."""
    if connection is not None and connection.holds_lock:
        psycopg.Cursor(connection).execute("SELECT pg_advisory_unlock_all()")
        psycopg.Connection.commit(connection)
        connection.holds_lock = False


def forget_soon(url: str) -> None:
    """Let no table of this database be logged: it need not outlive its server; and plan once how to empty them."""
    engine = sa.create_engine(url)
    with engine.begin() as tx:
        for table in metadata.sorted_tables:
            tx.exec_driver_sql(f'ALTER TABLE "{table.name}" SET UNLOGGED')
        tx.exec_driver_sql(f"CREATE FUNCTION empty() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {EMPTY}; END $$")
    engine.dispose()


def disconnect(engine: sa.Engine) -> None:
    """End every other connection: a world that failed may have left some, with their locks."""
    with engine.begin() as tx:
        tx.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    Connection.parked.clear()
    engine.dispose()


EMPTY = "; ".join(f'DELETE FROM "{t.name}"' for t in metadata.sorted_tables)
TRUNCATE = "TRUNCATE " + ", ".join(f'"{t.name}"' for t in metadata.sorted_tables) + " RESTART IDENTITY"


def empty(engine: sa.Engine, anew: bool = False) -> None:
    """Delete every row (on small tables faster than TRUNCATE); ``anew``: and what deleted rows leave behind."""
    with engine.begin() as tx:
        tx.exec_driver_sql(TRUNCATE if anew else "SELECT empty()")
