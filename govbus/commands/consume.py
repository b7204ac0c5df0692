"""``govbus consume``: the process that keeps the supervisor's desk and the directory view up to date."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("consume")(consume)


def consume(
    only: Annotated[
        str, typer.Option(help="One consumer: alerts, desk or directory; all of them if empty.")
    ] = "",
) -> None:
    """Run the consumers: supervisor alerts, the desk that follows their handling, and the directory view."""
    from consumers.alerts.desk import DeskClock
    from consumers.alerts.inbox import Inbox
    from consumers.directory.view import View
    from consumers.process import run_all
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas.errors import Misconfigured
    from streams.store import failpoints
    from streams.store.engine import connect

    effects = {effect.name: effect for effect in (Inbox(), View())}
    names = (*effects, "desk")
    if only and only not in names:
        raise Misconfigured(f"there is no consumer {only!r}; there are {', '.join(names)}")
    settings = resolve(load())
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, only or "consume")
    chosen = [effect for name, effect in effects.items() if only in ("", name)]
    desk = DeskClock(connect(settings.database_url), settings.kafka, settings.clock, settings.timer_settle_ms)
    extra = [desk.run] if only in ("", "desk") else []
    raise typer.Exit(run_all(settings.database_url, settings.kafka, chosen, extra))
