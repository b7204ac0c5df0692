"""``govbus consume``: the process that keeps the supervisor's desk and the directory view up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import sqlalchemy as sa

    from consumers.alerts.queue import Queue
    from consumers.loop import Effect
    from consumers.process import Work
    from govbus.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("consume")(consume)


def consume(
    only: Annotated[
        str, typer.Option(help="One consumer: alerts, desk, delivery or directory; all of them if empty.")
    ] = "",
) -> None:
    """Run the consumers: supervisor alerts, the desk that follows their handling, delivery, the directory view."""
    from consumers.alerts.desk import DeskClock
    from consumers.alerts.inbox import Inbox
    from consumers.directory.view import View
    from consumers.process import run_all
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas import access
    from schemas.errors import Misconfigured
    from streams.store import failpoints, quarantine
    from streams.store.engine import STILL_MS, connect

    settings = resolve(load())
    engine = connect(settings.database_url, still_ms=STILL_MS)
    desk = DeskClock(engine, settings.kafka, settings.clock, settings.timer_settle_ms)
    queue, deliveries = delivering(settings, engine)
    effects: dict[str, Effect] = {effect.name: effect for effect in (Inbox(), View(), queue) if effect is not None}
    works: dict[str, list[Work]] = {"desk": [desk.run], "delivery": deliveries}
    names = {*effects, *(name for name, work in works.items() if work)}
    if only == "delivery" and not deliveries:
        raise Misconfigured("nobody subscribes: set GOVBUS_WEBHOOKS or GOVBUS_DIGEST_TO (docs/alerts.md)")
    if only and only not in names:
        raise Misconfigured(f"there is no consumer {only!r}; there are {', '.join(sorted(names))}")
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, only or "consume")
    access.ask(settings.kafka)
    quarantine.stand_by(settings.home / "consume", only or "consume")
    chosen = [effect for name, effect in effects.items() if only in ("", name)]
    extra = [work for name, found in works.items() if only in ("", name) for work in found]
    raise typer.Exit(run_all(settings.database_url, settings.kafka, chosen, extra))


def delivering(settings: Settings, engine: sa.Engine) -> tuple[Queue | None, list[Work]]:
    """What queues alerts for those who subscribed, and the work that delivers them; nothing where nobody did."""
    from consumers.alerts.deliver import Deliverer
    from consumers.alerts.digest import Mailbox
    from consumers.alerts.queue import DIGEST, Queue, Subscription
    from consumers.alerts.quiet import Quiet, minutes
    from consumers.alerts.webhook import Webhook

    quiet = Quiet(minutes(settings.quiet_from or "0:0"), minutes(settings.quiet_to or "0:0"),
                  frozenset(settings.quiet_holds))  # fmt: skip
    deliverer = Deliverer(engine, quiet, settings.webhook_attempts)
    channels, works = [], []
    for hook in settings.webhooks:
        channels.append(
            Subscription(hook.name, frozenset(hook.kinds), frozenset(hook.colours), frozenset(hook.departments))
        )
        secret = hook.secret.get_secret_value().encode()
        hosts = frozenset(settings.webhook_hosts)
        works.append(
            deliverer.webhook(
                Webhook(hook.name, hook.url, secret, hosts, settings.webhook_timeout, settings.webhook_loopback)
            )
        )
    if settings.digest_to:
        channels.append(Subscription(DIGEST))
        box = Mailbox(settings.digest_dir, settings.smtp, settings.digest_from, settings.digest_to)
        works.append(deliverer.digests(box, minutes(settings.digest_at)))
    if not channels:
        return None, []
    return Queue(channels, quiet, round(settings.delivery_max_age_hours * 3_600_000)), works
