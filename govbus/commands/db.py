"""``govbus db``: the database's schema."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="The database's schema.")
    group.command("upgrade")(upgrade)
    app.add_typer(group, name="db")


def upgrade() -> None:
    """Bring the database to the newest schema; safe to run again and from several machines at once."""
    from rich.console import Console

    from govbus.runtime import resolve
    from govbus.settings import load
    from streams.store import migrate

    migrate.upgrade(resolve(load(), prepare=False).database_url)
    Console(stderr=True).print("database is at the newest schema")
