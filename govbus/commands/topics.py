"""``govbus topics apply`` and ``check``: the topics as ``schemas.topics`` declares them."""

from __future__ import annotations

import json

import typer

from govbus.screen import console

JSON = typer.Option(False, "--json", help="Print JSON to standard output.")


def register(app: typer.Typer) -> None:
    """Adds the command group."""
    group = typer.Typer(no_args_is_help=True, help="Topics as the code declares them.")
    group.command("apply")(apply)
    group.command("check")(check)
    app.add_typer(group, name="topics")


def apply(as_json: bool = JSON) -> None:
    """Create missing topics and mend settings; refuses what only an operator may change."""
    from connectors import topics_admin
    from govbus import runtime, settings

    found = runtime.resolve(settings.load(), prepare=False)
    done = topics_admin.apply(found.kafka, found.replication)
    _say({"done": done}, as_json, done or [f"nothing to do at {found.kafka}"])


def check(as_json: bool = JSON) -> None:
    """Compare the broker with the code; exit code 1 if anything differs."""
    from connectors import topics_admin
    from govbus import runtime, settings

    found = runtime.resolve(settings.load(), prepare=False)
    drift = topics_admin.check(found.kafka, found.replication)
    _say({"equal": not drift, "drift": drift}, as_json, drift or [f"all topics of {found.kafka} are as declared"])
    if drift:
        raise typer.Exit(1)


def _say(report: dict[str, object], as_json: bool, lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    screen = console()
    for line in lines:
        screen.print(line)
