"""``govbus schemas``: whether the contracts are sound, and their copies in a schema registry."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.table import Table

from govbus.screen import console

app = typer.Typer(no_args_is_help=True, help="Contracts: check them, freeze a version, register them.")


def register(root: typer.Typer) -> None:
    """Add the group to the command line."""
    root.add_typer(app, name="schemas")


@app.command("check")
def check(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Refuse unsound contracts, incompatible changes, wrong examples and orphans; exit code 1 if there are
    any.
    """
    from schemas import evolution

    found = evolution.check()
    if as_json:
        typer.echo(json.dumps({"ok": not found, "findings": [asdict(f) for f in found]}, ensure_ascii=False))
    else:
        _show(found)
    raise typer.Exit(1 if found else 0)


@app.command("freeze")
def freeze() -> None:
    """Store golden copies of contract versions that have none yet; refuses while ``check`` finds anything
    else.
    """
    from schemas import contracts, evolution
    from schemas.topics import TOPICS

    if wrong := [f for f in evolution.check() if f.rule != "not_frozen"]:
        _show(wrong)
        raise typer.Exit(1)
    for topic in TOPICS:
        if evolution.freeze(topic):
            typer.echo(f"frozen: {topic.name} version {contracts.version(topic)}")


@app.command("register")
def register_all(
    url: str = typer.Option(..., "--url", help="Base URL of a Confluent-compatible schema registry."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Register every contract version under its fixed id; drift is an error, a repetition changes nothing."""
    from connectors.registry import register_contracts

    outcomes = register_contracts(url)
    if as_json:
        typer.echo(json.dumps([asdict(o) for o in outcomes]))
        return
    for outcome in outcomes:
        typer.echo(f"{outcome.subject} version {outcome.version} id {outcome.schema_id}: {outcome.outcome}")


def _show(found: list) -> None:  # type: ignore[type-arg]
    if not found:
        console().print("contracts are sound and compatible with every frozen version")
        return
    table = Table("topic", "field", "rule", "what", "mend")
    for f in found:
        table.add_row(f.topic, f.field, f.rule, f.text, f.mend)
    console().print(table)
