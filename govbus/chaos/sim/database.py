"""PostgreSQL under the simulation: real, but every statement and every commit is a place where others take their turn,
and where a connection may break.

A strand that holds a lock may be paused for long, so whoever wants the lock gets an error at once instead of waiting
(``lock_timeout``); the product's own patience brings it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, cast

import psycopg
import sqlalchemy as sa

from govbus.chaos.sim import schedule
from govbus.chaos.sim.schedule import pause
from streams.store.tables import metadata

LOCK_TIMEOUT_MS = 4
CONNECTIONS = 60
OPTIONS = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c timezone=UTC -c client_encoding=UTF8 -c synchronous_commit=off"
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""Of a server that only simulations use: durability is not what is tested here."""
TRUNCATE_EVERY = 100


STIRS = {"outbox": "pg_notify", "push_queue": "INSERT INTO push_queue"}
"""What a statement says that gives somebody something to do."""


class Weather:
    """What the database does to its clients; ``rain`` is asked before each statement and commit."""

    def rain(self) -> str:
        """``""`` or what happens: ``lost`` (the connection breaks before), ``unknown`` (after the commit)."""
        return ""


class Cursor(psycopg.Cursor[Any]):
    """Others take their turn before every statement."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As psycopg does, after a pause."""
        self._meet()
        self._note(str(args[0]))
        return super().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        """As psycopg does, after a pause."""
        self._meet()
        self._note(str(args[0]))
        super().executemany(*args, **kwargs)

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        """As psycopg does, after a pause."""
        self._meet()
        return super().copy(*args, **kwargs)

    def _note(self, query: str) -> None:
        connection = cast(Connection, self.connection)
        connection.holds_lock |= "pg_try_advisory_lock" in query
        connection.stirs.update(what for what, words in STIRS.items() if words in query)

    def _meet(self) -> None:
        pause()
        if schedule.current() and Connection.weather.rain():
            raise psycopg.OperationalError("the simulated connection broke")


class Connection(psycopg.Connection[Any]):
    """A connection that is parked instead of closed, for making one costs more than a transaction."""

    weather: ClassVar[Weather] = Weather()
    parked: ClassVar[list[Connection]] = []
    commits: ClassVar[Counter[str]] = Counter()
    """How often something was committed that gives somebody something to do, by ``STIRS``."""
    holds_lock = False
    """Whether a lock of the session may be held: the pool must not keep that."""

    def commit(self) -> None:
        """Others take their turn before; the answer may be lost before or after."""
        pause()
        what = Connection.weather.rain() if schedule.current() else ""
        if what != "lost":
            super().commit()
            Connection.commits.update(self.stirs)
            self.stirs.clear()
        if what:
            raise psycopg.OperationalError("the simulated connection broke in a commit")

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Iterator[Any]:  # type: ignore[override]  # noqa: ARG002
        """A commit of somebody who notified ends the wait."""
        before = Connection.commits["outbox"]
        pause(timeout or 0.0, lambda: Connection.commits["outbox"] != before)
        return iter(())

    def rollback(self) -> None:
        """Nothing was stirred."""
        self.stirs.clear()
        super().rollback()

    @cached_property
    def stirs(self) -> set[str]:
        """What this transaction would give others to do."""
        return set()

    def close(self) -> None:
        """What the server does when a client is gone: roll back, give up session locks."""
        if self.closed:
            return
        super().rollback()
        self.autocommit = True
        psycopg.Cursor(self).execute("UNLISTEN *; SELECT pg_advisory_unlock_all()")
        self.autocommit = self.holds_lock = False
        self._notice_handlers.clear()
        Connection.parked.append(self)


def connect(url: str) -> sa.Engine:
    """An engine on ``url`` for all simulated processes."""
    where = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def make() -> Any:
        if Connection.parked:
            return Connection.parked.pop()
        context = engine.dialect._psycopg_adapters_map
        return Connection.connect(where, options=OPTIONS, cursor_factory=Cursor, context=context)

    engine: Any = sa.create_engine(url, creator=make, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True)
    sa.event.listen(engine, "checkin", _give_up_locks)
    checked: sa.Engine = engine
    return checked


def _give_up_locks(connection: Connection | None, _record: Any) -> None:
    """A process that died has left its connection to the pool: its locks end with it."""
    if connection is not None and connection.holds_lock:
        psycopg.Cursor(connection).execute("SELECT pg_advisory_unlock_all()")
        psycopg.Connection.commit(connection)
        connection.holds_lock = False


EMPTY = "; ".join(f'DELETE FROM "{t.name}"' for t in metadata.sorted_tables)
TRUNCATE = "TRUNCATE " + ", ".join(f'"{t.name}"' for t in metadata.sorted_tables) + " RESTART IDENTITY"


def empty(engine: sa.Engine, anew: bool = False) -> None:
    """Delete every row (on small tables faster than TRUNCATE); ``anew``: and what deleted rows leave behind."""
    with engine.begin() as tx:
        tx.exec_driver_sql(TRUNCATE if anew else EMPTY)
