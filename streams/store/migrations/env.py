"""Alembic's entry: runs migrations over the connection that ``streams.store.migrate`` hands in, in its
transaction.
"""

from __future__ import annotations

from alembic import context

from streams.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=False,
)
context.run_migrations()
