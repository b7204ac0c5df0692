"""``govbus push``: the process that sends ratings and rollups to the province and keeps its receipts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from govbus.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("push")(push)


def push() -> None:
    """Push ratings and rollups to the province, every batch until its signed receipt is here."""
    from connectors.province.push import Queue, Sender
    from consumers.process import run_all
    from govbus.logs import configure
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas import access
    from streams.store import failpoints, quarantine
    from streams.store.engine import connect

    given = load()
    settings = resolve(given)
    failpoints.arm(settings.failpoint)
    configure(settings.log_level, "push")
    access.ask(settings.kafka)
    quarantine.stand_by(settings.home / "push", "push")
    sender = Sender(connect(settings.database_url), address(given), settings.region)
    raise typer.Exit(run_all(settings.database_url, settings.kafka, [Queue()], [lambda stop: sender.run(stop)]))


def address(given: Settings) -> Callable[[], tuple[str, str]]:
    """Where the province is, as (URL, public key): as configured, or as the local province last published it.

    The local one is read at every use, because it may come back on another port. Raises ``Misconfigured``
    for a URL without a key.
    """
    import json

    from govbus.runtime import PROVINCE_ADDRESS
    from schemas.errors import Misconfigured, Retryable

    if given.province_url:
        if not given.province_public_key:
            raise Misconfigured("GOVBUS_PROVINCE_URL is set, GOVBUS_PROVINCE_PUBLIC_KEY is not: receipts need it")
        return lambda: (given.province_url, given.province_public_key)

    def published() -> tuple[str, str]:
        try:
            said = json.loads((given.home / PROVINCE_ADDRESS).read_text())
            return said["url"], given.province_public_key or said["public_key"]
        except (OSError, ValueError, KeyError):
            raise Retryable("the local province has not published its address yet") from None

    return published
