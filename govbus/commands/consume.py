"""``govbus consume``: the process that keeps the supervisor's desk and the directory view up to date."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("consume")(consume)


def consume(
    only: Annotated[str, typer.Option(help="One consumer: alerts or directory; all of them if empty.")] = "",
) -> None:
    """Run the consumers: supervisor alerts and the directory view."""
    from consumers.alerts.inbox import Inbox
    from consumers.directory.view import View
    from consumers.process import run_all
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas.errors import Misconfigured
    from streams.store import failpoints, quarantine

    effects = {effect.name: effect for effect in (Inbox(), View())}
    if only and only not in effects:
        raise Misconfigured(f"there is no consumer {only!r}; there are {', '.join(effects)}")
    settings = resolve(load())
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, only or "consume")
    quarantine.stand_by(settings.home / "consume", only or "consume")
    chosen = [effects[only]] if only else list(effects.values())
    raise typer.Exit(run_all(settings.database_url, settings.kafka, chosen))
