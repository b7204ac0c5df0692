"""``govbus db``: the database's schema."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="The database's schema.")
    group.command("upgrade")(upgrade)
    app.add_typer(group, name="db")


def upgrade(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")] = False,
) -> None:
    """Bring the database to the newest schema; safe to run again and from several machines at once."""
    import json

    import sqlalchemy as sa

    from govbus.runtime import database_url
    from govbus.screen import console
    from govbus.settings import load
    from streams.store import migrate

    screen = console(stderr=True)
    with screen.status("waiting for the database, then migrating"):
        url = sa.make_url(database_url(load(), prepare=False))
        revision = migrate.upgrade(url.render_as_string(hide_password=False))
    if as_json:
        typer.echo(json.dumps({"revision": revision}))
    else:
        screen.print(f"database {url.database} at {url.host}:{url.port or 5432} is at the newest schema, {revision}")
