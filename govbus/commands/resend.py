"""``govbus resend``: send again what the log has lost although it had acknowledged it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from consumers.resend import Resent


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("resend")(resend)


def resend(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is lost; exit code 1 if anything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """After a broker lost acknowledged records, or a topic was deleted: mark them unsent and move the cursors back.

    The relay then sends them in the order of publishing; what was applied before is known by its id.
    """
    import json

    from consumers.resend import resend as again
    from govbus.commands.reconcile import bar
    from govbus.runtime import resolve
    from govbus.settings import load
    from streams.store.engine import connect

    settings = resolve(load())
    if not (yes or dry_run):
        typer.confirm("Compare the outbox with the whole log and send again what is missing?", abort=True, err=True)
    engine = connect(settings.database_url)
    try:
        with bar(as_json) as progress:
            found = again(engine, settings.kafka, dry_run, progress)
    finally:
        engine.dispose()
    typer.echo(json.dumps(found.plain())) if as_json else _show(found, dry_run)
    raise typer.Exit(1 if dry_run and not found.nothing else 0)


def _show(found: Resent, dry: bool) -> None:
    if found.nothing:
        typer.echo("the log holds everything that was sent")
    for topic, count in found.lost.items():
        typer.echo(f"{topic}: {count:,} events {'are missing' if dry else 'will be sent again'}")
    for m in found.moved:
        typer.echo(f"{m.processor} on {m.topic}/{m.partition}: cursor {m.before:,} -> {m.now:,}")
