"""Brings the database to the newest schema. Decides only when and under which lock migrations run."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext

from streams.store import revision
from streams.store.engine import connect

LOCK = 0x676F7662  # "govb": one upgrade at a time on one database
SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> str:
    """Apply every missing migration to the database at ``url``; safe to call from many processes at once.

    Returns the revision that the database is at now; raises ``Misconfigured`` if a newer release was here.
    """
    engine = connect(url, checked=False)
    try:
        with engine.begin() as tx:
            tx.execute(sa.text("SET LOCAL lock_timeout = 0"))
            tx.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            revision.refuse_newer(MigrationContext.configure(tx).get_current_revision() or "")
            command.upgrade(config(tx), "head")
            return str(tx.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()


def config(tx: sa.Connection) -> Config:
    """An Alembic configuration that migrates over ``tx`` and needs no ini file."""
    settings = Config()
    settings.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    settings.attributes["connection"] = tx
    return settings
