"""Brings the database to the newest schema. Decides only when and under which lock migrations run."""

from __future__ import annotations

import time
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext

from schemas.errors import Misconfigured
from streams.store import revision
from streams.store.engine import connect

LOCK = 0x676F7662  # "govb": one upgrade at a time on one database
SCRIPTS = Path(__file__).parent / "migrations"
LEAVING_S = 10.0
"""How long a process that has just been stopped may take to be gone from the server."""


def upgrade(url: str) -> str:
    """Apply every missing migration to the database at ``url``; safe to call from many processes at once.

    Returns the revision that the database is at now; raises ``Misconfigured`` if a newer release was here, or if a
    process still works on a database that has something to migrate.
    """
    engine = connect(url, checked=False)
    try:
        with engine.begin() as tx:
            tx.execute(sa.text("SET LOCAL lock_timeout = 0"))
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            found = MigrationContext.configure(tx).get_current_revision() or ""
            revision.refuse_newer(found)
            if found not in ("", revision.known()[-1]):
                _refuse_company(tx)
            command.upgrade(config(tx), "head")
            return str(tx.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()


_COMPANY = sa.text("""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'govbus' AND pid <> pg_backend_pid()
  AND wait_event IS DISTINCT FROM 'advisory'
""")
"""Other sessions of ours, but for those that wait to migrate as well."""


def _refuse_company(tx: sa.Connection) -> None:
    """An older process beside the migration would go on by its own rules with what the new release has to look at."""
    end = time.monotonic() + LEAVING_S
    while (count := tx.execute(_COMPANY).scalar_one()) and time.monotonic() < end:
        time.sleep(0.2)
        tx.execute(sa.text("SELECT pg_stat_clear_snapshot()"))  # else the transaction sees the same again
    if count:
        raise Misconfigured(f"{count} sessions of govbus still work on this database: stop every process, then "
                            "govbus db upgrade (docs/operate.md, Upgrading)")  # fmt: skip


def config(tx: sa.Connection) -> Config:
    """An Alembic configuration that migrates over ``tx`` and needs no ini file."""
    settings = Config()
    settings.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    settings.attributes["connection"] = tx
    return settings
