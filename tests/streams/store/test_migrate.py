"""Migrations lead to the tables that the code declares."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from streams.store import migrate
from streams.store.tables import metadata

pytestmark = pytest.mark.stack


def differences(engine: sa.Engine) -> list[object]:
    with engine.connect() as tx:
        return list(compare_metadata(MigrationContext.configure(tx, opts={"compare_type": True}), metadata))


def test_migrated_tables_are_the_declared_tables(engine: sa.Engine) -> None:
    assert differences(engine) == []


def test_a_forgotten_column_is_noticed(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text("ALTER TABLE handling DROP COLUMN closed_at"))
    assert differences(engine)


def test_an_upgrade_may_be_repeated(database: str, engine: sa.Engine) -> None:
    migrate.upgrade(database)
    assert differences(engine) == []
