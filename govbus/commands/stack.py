"""``govbus up``, ``down`` and ``status``: the local stack, or the state of the configured one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from govbus import settings as settings_module
from govbus.settings import Settings
from schemas.errors import Misconfigured

JSON = typer.Option(False, "--json", help="Print JSON to standard output.")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(as_json: bool = JSON) -> None:
    """Start the local Kafka and PostgreSQL, with topics and tables; nothing happens to parts that run."""
    from govbus import runtime

    settings = settings_module.load()
    if settings.kafka and settings.database_url:
        raise Misconfigured("GOVBUS_KAFKA and GOVBUS_DATABASE_URL are set: there is no local stack to start")
    found = runtime.resolve(settings, prepare=False)
    changed = runtime.prepare_bus(found.kafka, found.database_url, found.replication)
    _show(_report(settings), as_json, changed)


def down(as_json: bool = JSON) -> None:
    """Stop the local Kafka and PostgreSQL; their data stays."""
    from govbus import runtime

    settings = settings_module.load()
    stopped = runtime.local_stack(settings).down()
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
    else:
        Console().print("stopped " + ", ".join(stopped) if stopped else "nothing was running")


def status(as_json: bool = JSON) -> None:
    """Show every part, its address and whether it answers; exit code 1 if one does not."""
    report = _report(settings_module.load())
    _show(report, as_json, [])
    if not all(part["running"] for part in report):
        raise typer.Exit(1)


def _report(settings: Settings) -> list[dict[str, Any]]:
    from govbus import runtime

    local = [
        asdict(part)
        for part in runtime.local_stack(settings).status()
        if not (settings.database_url if part.name == "postgres" else settings.kafka)
    ]
    return local + _configured(settings)


def _configured(settings: Settings) -> list[dict[str, Any]]:
    """The parts that lie elsewhere, asked whether they answer. Addresses are shown without passwords."""
    parts: list[dict[str, Any]] = []
    if settings.kafka:
        from connectors.local.broker import serves

        parts.append({"name": "kafka", "running": serves(settings.kafka), "address": settings.kafka})
    if settings.database_url:
        address, answers = _database(settings.database_url)
        parts.append({"name": "postgres", "running": answers, "address": address})
    return [{"pid": None, "data": "", "log": "", **part} for part in parts]


def _database(url: str) -> tuple[str, bool]:
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return f"{parsed.host}:{parsed.port or 5432}/{parsed.database}", True
    except sa.exc.OperationalError:
        return f"{parsed.host}:{parsed.port or 5432}/{parsed.database}", False


def _show(report: list[dict[str, Any]], as_json: bool, changed: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps({"parts": report, "changed": changed}, ensure_ascii=False))
        return
    table = Table("part", "state", "address", "pid", "log")
    for part in report:
        state = "[green]running[/green]" if part["running"] else "[red]stopped[/red]"
        table.add_row(part["name"], state, part["address"], str(part["pid"] or ""), part["log"])
    console = Console()
    console.print(table)
    for line in changed:
        console.print(f"  {line}")
