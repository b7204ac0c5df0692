"""``govbus relay``: the process that carries the outbox to Kafka."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("relay")(relay)


def relay() -> None:
    """Send what is published to Kafka until told to stop; waits out an absent database or broker."""
    from connectors.relay import Relay
    from consumers.process import together
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas import access
    from streams.store import failpoints
    from streams.store.engine import connect

    settings = resolve(load())
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, "relay")
    access.ask(settings.kafka)
    engine = connect(settings.database_url)
    try:
        raise typer.Exit(together([Relay(engine, settings.kafka).run]))
    finally:
        engine.dispose()
