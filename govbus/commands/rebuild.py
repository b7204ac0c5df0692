"""``govbus rebuild``: derive everything again from the log."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from sqlalchemy import Engine


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("rebuild")(rebuild)


def rebuild(
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    timeout: float = typer.Option(600.0, help="Seconds to wait for the workers; 0: do not wait."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON to standard output."),
) -> None:
    """Forget cases, cards, ratings, licences and directory, and let the workers read the whole log again.

    Exit code 0 only if the cursors reached the end of the log; needs a running worker.
    """
    from govbus.runtime import resolve
    from govbus.screen import console
    from govbus.settings import load
    from streams.agents import projections
    from streams.store import rebuild as store
    from streams.store.engine import connect

    settings = resolve(load())
    if not yes:
        typer.confirm("Empty the derived tables and read the log again?", abort=True, err=True)
    names = [projection.name for projection in projections()]
    engine = connect(settings.database_url)
    with engine.connect():  # before anything is emptied: both must answer, or nothing would be filled again
        ends = _ends(settings.kafka)
    store.forget(engine, names)
    told = console(stderr=True)
    told.print("derived tables are empty; the workers read the log again")
    begun = time.monotonic()
    caught_up = _follow(ends, engine, names, timeout, told) if timeout else None
    if as_json:
        typer.echo(json.dumps({"caught_up": caught_up, "seconds": round(time.monotonic() - begun, 1)}))
    if caught_up is False:
        told.print("not at the end of the log yet; is a worker running? (govbus worker)", style="red")
        raise typer.Exit(1)


def _ends(kafka: str) -> Mapping[tuple[str, int], int]:
    """Where the log ends now, by topic and partition."""
    from consumers.loop import partitions, reader
    from schemas.topics import INBOUND

    consumer = reader(kafka)
    try:
        return {(p.topic, p.partition): o for p, o in consumer.end_offsets(partitions(consumer, INBOUND)).items()}
    finally:
        consumer.close()


def _follow(
    wanted: Mapping[tuple[str, int], int], engine: Engine, names: list[str], timeout: float, told: Console
) -> bool:
    """Show how far the cursors are; True once they stand where the log ended (``wanted``)."""
    from rich.progress import Progress

    from streams.store.applier import cursors

    until = time.monotonic() + timeout
    with Progress(console=told, transient=True) as bar:
        task = bar.add_task("records read again", total=sum(wanted.values()))
        while True:
            with engine.connect() as tx:
                at = cursors(tx, names)
            done = sum(min(at.get(place, 0), end) for place, end in wanted.items())
            bar.update(task, completed=done)
            if done == sum(wanted.values()) or time.monotonic() >= until:
                return bool(done == sum(wanted.values()))
            time.sleep(0.2)
