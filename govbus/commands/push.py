"""``govbus push``: the process that sends ratings and rollups to the province and keeps its receipts; with ``--again``
what the province refused, or has lost, goes back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from govbus.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("push")(push)


def push(
    again: Annotated[
        bool, typer.Option("--again", help="Only put back in the queue what the province refused, and end.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --again: only what it refused for this reason.")] = "",
    since: Annotated[
        str,
        typer.Option(
            help="With --again: instead what it acknowledged at or after this time, for it has lost it; ISO 8601 "
            "(Asia/Shanghai unless it says otherwise)."
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="With --again: do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --again: print the result as JSON.")] = False,
) -> None:
    """Push ratings and rollups to the province, every batch until its signed receipt is here."""
    if not again and (reason or since or yes or as_json):
        raise typer.BadParameter("--reason, --since, --yes and --json belong to --again")
    if reason and since:
        raise typer.BadParameter("--reason is about what was refused, --since about what was acknowledged: give one")
    if since:
        _again_since(since, yes, as_json)
    elif again:
        _again(reason, yes, as_json)
    else:
        _run()


def _again(reason: str, yes: bool, as_json: bool) -> None:
    """Queue what was refused anew; a running ``govbus push`` sends it."""
    import json

    from connectors.province import push as queue
    from govbus.runtime import district
    from schemas.errors import Misconfigured

    with district() as engine:
        with engine.connect() as tx:
            found = queue.refused(tx)
        if reason and reason not in found:
            raise Misconfigured(f"--reason: nothing was refused for that, but for: {', '.join(found) or 'nothing'}")
        told = ", ".join(f"{n:,} {why}" for why, n in found.items() if reason in ("", why))
        if found and not yes:
            typer.confirm(f"Send again what the province refused ({told})?", abort=True, err=True)
        with engine.begin() as tx:
            count = queue.again(tx, reason)
    typer.echo(json.dumps({"again": count}) if as_json else f"{count:,} records go to the province again")


def _again_since(since: str, yes: bool, as_json: bool) -> None:
    """Queue anew what was acknowledged; exit code 1 if a receipt proves nothing or a record is not in the outbox."""
    import json

    from connectors.province import push as queue
    from govbus.runtime import district, with_province
    from govbus.settings import load
    from schemas.errors import Misconfigured

    at, key = _moment(since), with_province(load()).province_public_key
    if not key:
        raise Misconfigured("no province is known: set GOVBUS_PROVINCE_PUBLIC_KEY")
    with district() as engine:
        with engine.connect() as tx:
            found = queue.acknowledged(tx, at)
        if found and not yes:
            asked = f"Send again what the province acknowledged since {since} (up to {found:,} records)?"
            typer.confirm(asked, abort=True, err=True)
        done = queue.again_since(engine, at, key)
    if as_json:
        typer.echo(json.dumps({"again": done.records, "forged_receipts": done.forged, "not_in_outbox": done.lost}))
    else:
        typer.echo(f"{done.records:,} records go to the province again")
    if done.forged or done.lost:
        left_out = f"{done.forged:,} receipts that it has not signed, {done.lost:,} records that are not in the outbox"
        typer.echo(f"left out: {left_out}", err=True)
        raise typer.Exit(1)


def _moment(text: str) -> int:
    """Epoch milliseconds."""
    from datetime import datetime

    from schemas.clock import SHANGHAI

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("not an ISO 8601 time such as 2026-11-30T02:00", param_hint="--since") from None
    return int((at if at.tzinfo else at.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def _run() -> None:
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
