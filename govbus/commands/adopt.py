"""``govbus adopt``: after the database was restored from a backup, take in again what the log carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from consumers.adopt import Adopted


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("adopt")(adopt)


def adopt(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what lacks; exit code 1 if anything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """After a backup of the database was restored and the workers are through: take what they applied into the outbox.

    Exit code 1 if an event was published anew meanwhile, which stays a difference.
    """
    import json

    from consumers.adopt import adopt as take_in
    from govbus.commands.reconcile import bar
    from govbus.runtime import resolve
    from govbus.settings import load
    from streams.store.engine import connect

    settings = resolve(load())
    if not (yes or dry_run):
        typer.confirm("Trust what the log carries and the workers applied as published here?", abort=True, err=True)
    engine = connect(settings.database_url)
    try:
        with bar(as_json) as progress:
            found = take_in(engine, settings.kafka, dry_run, progress)
    finally:
        engine.dispose()
    typer.echo(json.dumps(found.plain())) if as_json else _show(found, dry_run)
    raise typer.Exit(1 if found.again or (dry_run and found.taken) else 0)


def _show(found: Adopted, dry: bool) -> None:
    if not found.taken and not found.again:
        typer.echo("the outbox has everything that was applied")
    for topic, count in found.taken.items():
        typer.echo(f"{topic}: {count:,} events {'are lacking' if dry else 'taken in'}")
    for topic, count in found.again.items():
        typer.echo(f"{topic}: {count:,} events were published anew with another time of receipt and stay a difference")
