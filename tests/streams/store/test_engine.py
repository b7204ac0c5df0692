"""How connections behave: what is read often stays prepared."""

from __future__ import annotations

import socket

import psycopg
import pytest
import sqlalchemy as sa

from streams.store import engine as engine_module
from streams.store.bulk import driver
from streams.store.engine import connect, is_transient, not_let_in, reading

OFTEN = 7
"""psycopg prepares a statement when it is executed for the sixth time."""
PREPARED = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT next_offset%'")


def test_what_a_line_reads_again_and_again_is_prepared_once(database: str) -> None:
    engine = connect(database)
    for _ in range(OFTEN):
        with reading(engine).connect() as tx:
            tx.execute(sa.text("SELECT next_offset FROM cursor")).all()
    with engine.begin() as tx:
        kept = tx.execute(PREPARED).scalar_one()
    engine.dispose()
    assert kept == 1


def test_a_prepared_statement_is_planned_for_the_tables_as_they_are(database: str) -> None:
    """It is prepared on an empty table, which is then filled: the index must be used."""
    engine, read = connect(database), sa.text("SELECT event_id FROM rating_event WHERE case_no = :case_no")
    with engine.begin() as tx:
        for _ in range(2 * OFTEN):
            tx.execute(read, {"case_no": "C1"}).all()
        plans = tx.execute(sa.text("SELECT generic_plans, custom_plans FROM pg_prepared_statements")).all()
    engine.dispose()
    assert [generic for generic, _ in plans] == [0] * len(plans)
    assert max(custom for _, custom in plans) > OFTEN


def test_a_connection_and_what_it_keeps_of_its_largest_statement_is_given_up_after_a_while(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(_sessions(database)) == 1
    monkeypatch.setattr(engine_module, "RECYCLE_S", 0)
    assert len(_sessions(database)) == 2


def test_each_side_notices_within_half_a_minute_that_the_other_has_vanished(database: str) -> None:
    """A host that is gone would hold the rows of its cursors, and its advisory locks, for two hours."""
    engine = connect(database)
    asked = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    with engine.connect() as tx:
        theirs = [tx.execute(sa.text(f"SHOW {name}")).scalar_one() for name in asked]
        with socket.fromfd(driver(tx).fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
            ours = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    engine.dispose()
    assert (theirs, ours) == (["10", "5", "3", "25000"], 25_000)


@pytest.mark.parametrize(
    ("answer", "so"),
    [
        ('FATAL:  password authentication failed for user "govbus"', True),
        ('FATAL:  role "govbus" does not exist', True),
        ('FATAL:  database "govbus" does not exist', True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "govbus", database "govbus", no encryption', True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("Connection refused", False),
    ],
)
def test_an_address_that_is_wrong_is_told_from_a_database_that_is_away(answer: str, so: bool) -> None:
    error = psycopg.OperationalError(f'connection failed: connection to server at "db", port 5432 failed: {answer}')
    wrapped = sa.exc.OperationalError("SELECT 1", {}, error)
    assert [bool(not_let_in(error)), bool(not_let_in(wrapped))] == [so, so]
    assert is_transient(wrapped)  # a worker that was let in before waits


def _sessions(database: str) -> set[int]:
    """The sessions that served two transactions, one after the other."""
    engine, found = connect(database), set()
    for _ in range(2):
        with engine.begin() as tx:
            found.add(tx.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
    engine.dispose()
    return found


def test_who_stands_still_amid_a_transaction_gives_up_its_locks_and_may_try_again(database: str) -> None:
    """A stopped process answers the kernel's questions all the same; another must be able to take over."""
    frozen, other = connect(database, still_ms=200), connect(database)
    with frozen.connect() as tx:
        tx.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
        with other.begin() as successor:
            successor.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(sa.exc.DBAPIError) as told:
            tx.exec_driver_sql("SELECT 1")
    assert is_transient(told.value)
    with frozen.begin() as tx:
        assert tx.exec_driver_sql("SELECT 1").scalar_one() == 1
    for one in (frozen, other):
        one.dispose()
