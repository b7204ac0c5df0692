"""What an operator is told when the database or Kafka fails under a command; knows no command.

Decides which of the drivers' errors are outages. What is none of these is a mistake of ours.
"""

from __future__ import annotations

from schemas.errors import GovbusError, Misconfigured, Retryable

NO_SUCH_TABLE, NO_SUCH_COLUMN = "42P01", "42703"


def explained(error: BaseException) -> GovbusError | None:
    """The error in an operator's words: wait (``Retryable``) or mend (``Misconfigured``); None: not an outage."""
    import psycopg
    import sqlalchemy as sa
    from confluent_kafka import KafkaException
    from kafka.errors import AuthorizationError, KafkaError

    if isinstance(error, AuthorizationError):
        return Misconfigured(f"Kafka does not allow it: {_first_line(error)}; docs/operate.md, access lists")
    if isinstance(error, KafkaError | KafkaException):
        return Retryable(f"Kafka does not answer: {_first_line(error)}; govbus status shows what runs")
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return _database(error, cause) if isinstance(cause, psycopg.Error) else None


def _database(error: BaseException, cause: BaseException) -> GovbusError | None:
    import psycopg

    from streams.store.engine import is_transient, not_allowed, not_let_in

    code = getattr(cause, "sqlstate", None)
    if code in (NO_SUCH_TABLE, NO_SUCH_COLUMN):
        return Misconfigured("the database is not at the newest schema: govbus db upgrade")
    if answer := not_let_in(cause):
        return Misconfigured(f"GOVBUS_DATABASE_URL: {answer}")
    if not_allowed(cause):
        mend = "a department's login publishes and works its own dead letters; all else is the bus's (docs/operate.md)"
        return Misconfigured(f"GOVBUS_DATABASE_URL: the login may not do that, {_first_line(cause)}: {mend}")
    if code is None and isinstance(cause, psycopg.ProgrammingError):  # libpq does not take the address
        return Misconfigured("GOVBUS_DATABASE_URL: an option behind ? is none of libpq's, or has no such value")
    if is_transient(error):
        return Retryable(f"PostgreSQL does not answer: {_first_line(cause)}; govbus status shows what runs")
    return None


def _first_line(error: BaseException) -> str:
    """The drivers' first line names the address and the reason; values of rows never stand there."""
    return str(error).strip().partition("\n")[0]
