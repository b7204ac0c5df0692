"""``govbus worker``: the process that applies the inbound topics."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("worker")(worker)


def worker() -> None:
    """Apply the inbound topics to the database, for ever; several workers share the partitions."""
    import structlog

    from connectors.topics_admin import await_topics
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas import access
    from streams.store import failpoints
    from streams.worker import run

    settings = resolve(load())
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, "worker")
    if settings.clock == "watermark":
        structlog.get_logger(__name__).warning("worker.simulates", why="timers go by the events, not by the clock")
    access.ask(settings.kafka)
    await_topics(settings.kafka)
    run(
        settings.kafka,
        settings.database_url,
        settings.home,
        settings.clock,
        settings.timer_settle_ms,
        name=settings.worker_name,
    )
