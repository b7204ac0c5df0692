"""No process works beside a database whose schema is not the one that it was written for."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from connectors.publisher import Publisher
from connectors.relay import Relay
from consumers.alerts.inbox import Inbox
from consumers.loop import Loop
from consumers.process import together
from schemas.errors import Misconfigured
from schemas.topics import RATING
from streams import app
from streams.store import migrate, revision
from streams.store.engine import connect

OLDER, NEWER = "govbus db upgrade", "schema 9999 of a newer release, this one knows .*: start the newer release"


def at(engine: sa.Engine, found: str) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = :found"), {"found": found})


def test_the_newest_revision_is_the_head_of_the_migrations() -> None:
    script = ScriptDirectory(str(migrate.SCRIPTS))
    assert set(revision.known()) == {found.revision for found in script.walk_revisions()}
    assert revision.known()[-1] == script.get_current_head()


@pytest.mark.stack
@pytest.mark.parametrize(("found", "said"), [("0001", OLDER), ("9999", NEWER)])
def test_neither_an_older_nor_a_newer_schema_is_written_to(
    database: str, engine: sa.Engine, found: str, said: str
) -> None:
    at(engine, found)
    with pytest.raises(Misconfigured, match=said):
        Publisher(connect(database), "HS-ZRZYJ", "430903").publish(RATING, [{"case_no": "C1"}])
    ours = "WHERE datname = current_database() AND application_name = 'govbus'"
    end = time.monotonic() + 60
    while True:  # a session ends a moment after its connection
        with engine.begin() as tx:
            if tx.execute(sa.text(f"SELECT count(*) FROM pg_stat_activity {ours}")).scalar_one() == 0:
                break
        assert time.monotonic() < end, "a connection was left open"
        time.sleep(0.05)


@pytest.mark.stack
def test_a_database_without_a_schema_names_what_makes_one(database: str, engine: sa.Engine) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text("DROP TABLE alembic_version"))
    with pytest.raises(Misconfigured, match=OLDER):
        connect(database).connect()


@pytest.mark.stack
def test_relay_and_consumers_beside_another_schema_end_as_what_no_restart_mends(
    database: str, engine: sa.Engine
) -> None:
    at(engine, "9999")
    assert together([Relay(connect(database), "127.0.0.1:1").run]) == os.EX_CONFIG
    loop = Loop(connect(database), "127.0.0.1:1", Inbox())

    def consume(stop: threading.Event) -> None:
        loop._patiently(stop, "PostgreSQL", lambda: loop.commit({}))

    assert together([consume]) == os.EX_CONFIG


@pytest.mark.stack
def test_a_worker_notices_that_the_database_was_migrated_beneath_it(
    database: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SCHEMA_EVERY_S", 0.01)
    own = connect(database, ping=False)
    with own.connect():
        pass  # a connection that was made before, and goes back to the pool
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(app._same_schema(own), 0.5))
    at(engine, "9999")
    with pytest.raises(Misconfigured, match=NEWER):
        asyncio.run(asyncio.wait_for(app._same_schema(own), 30))
    own.dispose()


@pytest.mark.stack
def test_a_database_of_a_newer_release_is_not_migrated(database: str, engine: sa.Engine) -> None:
    at(engine, "9999")
    with pytest.raises(Misconfigured, match=NEWER):
        migrate.upgrade(database)
