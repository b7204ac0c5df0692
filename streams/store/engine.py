"""Opens the database. Decides how connections behave and which of their errors will pass; knows nothing of
events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

from schemas.errors import Retryable
from streams.store import revision

LOCK_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 5
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""After how many seconds of silence the other side is asked whether it lives, how often, and how many times in vain."""
GONE_MS = 25_000
"""How long, in milliseconds, what was sent may stay unconfirmed: as long as those questions take. Nobody is asked while
something is on its way, and of itself Linux would send that again for a quarter of an hour."""
STILL_MS = 180_000
"""How long, in milliseconds, a worker or consumer may stand still amid a transaction: one that was stopped or swapped
out answers the questions above all the same, and its locks would keep whoever takes over waiting. Longer than the
longest call of a subscriber (60 s), during which its row is locked.
"""
RECYCLE_S = 600
"""How long a connection is kept. It never gives back the memory of the largest statement and the largest answer that it
carried: 2 MB after a parameter of 1.5 MB, half a megabyte for each connection of a worker that ran for 40 minutes."""
FRESH_PLANS = "-c plan_cache_mode=force_custom_plan"
"""A plan that is kept from when the tables were empty may read all of them ever after."""
GIVE_UP = " ".join(f"-c tcp_{name}={value}" for name, value in {**KEEPALIVES, "user_timeout": GONE_MS}.items())
"""The server's side: a host that vanishes amid a transaction holds its cursors' rows and advisory locks until the
server knows, by the defaults for two hours. On a Unix socket all of these mean nothing."""
# SQLSTATE classes and codes after which the same transaction may succeed (PostgreSQL manual, appendix A):
# 08 connection, 40 rollback (serialization, deadlock), 53 resources (disk, connections), 57P operator
# (shutdown, crash, starting up), 58 system; 25006 read-only (fail-over), 25P03 stood still amid a transaction (another
# may have taken over), 55P03 lock timeout, 57014 cancelled.
TRANSIENT_CLASSES = ("08", "40", "53", "57P", "58")
TRANSIENT_CODES = frozenset({"25006", "25P03", "55P03", "57014"})
NOT_LET_IN = re.compile(
    r'FATAL:\s+(\w+ authentication failed for user |(database|role) ".*" does not exist|no pg_hba\.conf entry for |'
    r"permission denied for database )"
)
"""What PostgreSQL answers to a wrong address (28P01, 28000, 3D000). While connecting psycopg gives no SQLSTATE."""


def connect(url: str, pool_size: int = 8, ping: bool = True, checked: bool = True, still_ms: int = 0) -> sa.Engine:
    """An engine on PostgreSQL, read committed, UTC, with bounded waits for locks and connections.

    ``ping`` asks before every transaction whether the connection lives; who tries again anyway need not ask.
    ``checked``: every new connection raises ``Misconfigured`` where the schema is not this release's; not for whoever
    migrates, nor for a database that is not the district's.
    ``still_ms``: after how many milliseconds without a word amid a transaction the server ends it (0: never).
    ``url`` is a SQLAlchemy URL with the psycopg driver. Nothing is connected until the first use.
    """
    patience = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={still_ms}"
    options = f"{patience} -c timezone=UTC -c client_encoding=UTF8 {FRESH_PLANS} {GIVE_UP}"
    engine = sa.create_engine(
        url,
        pool_pre_ping=ping,
        hide_parameters=True,  # errors reach logs, and parameters may be personal
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_use_lifo=True,  # psycopg prepares what one connection has executed some times
        pool_timeout=30,
        pool_recycle=RECYCLE_S,
        connect_args={
            "options": options,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "govbus",
            **KEEPALIVES,
            "tcp_user_timeout": GONE_MS,
        },
    )
    if checked:
        sa.event.listen(engine, "connect", _check)
    return engine


def _check(connection: Any, _record: object) -> None:
    try:
        revision.check(connection)
        connection.rollback()
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise


def reading(engine: sa.Engine) -> sa.Engine:
    """``engine`` for reads that need no snapshot, on the same pool: each statement sees what is committed by then.

    Nothing is begun, so nothing is rolled back: after a rollback psycopg forgets its prepared statements.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def not_let_in(error: BaseException) -> str:
    """PostgreSQL's answer, in one line, to who connects with a password, user or database that it does not know; empty:
    it answered nothing of that kind. Who has just begun has the wrong address; who was let in before may wait.
    """
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    refused = isinstance(cause, psycopg.OperationalError) and NOT_LET_IN.search(str(cause))
    return str(cause).strip().partition("\n")[0] if refused else ""


def not_allowed(error: BaseException) -> bool:
    """True if PostgreSQL let us in but its privileges or row policies forbid what we asked."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return isinstance(cause, psycopg.errors.InsufficientPrivilege)


def why(error: BaseException) -> str:
    """Why one waits, for a line of the log: that answer, else the name of what the driver raised."""
    return not_let_in(error) or type(error).__name__


def is_transient(error: BaseException) -> bool:
    """True if the database may accept the same transaction later (gone, busy, full, read-only, deadlock)."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated or _transient_cause(error.orig)
    return _transient_cause(error)


@contextmanager
def retryable() -> Iterator[None]:
    """Also a decorator: what will pass leaves as ``Retryable`` that says why one waits, all else as it is."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise Retryable(f"database: {why(error)}") from error
        raise


def _transient_cause(error: BaseException | None) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    code = error.sqlstate
    if code is None:  # the server never answered: refused, reset, closed
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return code.startswith(TRANSIENT_CLASSES) or code in TRANSIENT_CODES
