"""``govbus up``, ``down`` and ``status``: the local stack, or the state of the configured one."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from govbus import settings as settings_module
from govbus.screen import console
from govbus.settings import Settings
from schemas.errors import Misconfigured

WAITING = {
    "unsent": "events wait for Kafka (govbus relay)",
    "unjudged": "cases and groups of cases wait for the worker's look (govbus worker)",
    "undecided": "cases and departments wait for the desk (govbus consume)",
    "unacknowledged": "records wait for the province (govbus push)",
    "refused": "records were refused by the province (govbus reconcile; once the cause is mended, govbus push --again)",
    "undelivered": "alerts wait for their subscribers (govbus alerts deliveries)",
    "given_up": "alerts could not be delivered (govbus alerts deliveries --dead)",
    "dead_letters": "dead letters are open (govbus dlq list)",
    "provisional": "open clocks end on a day whose calendar is not published, and bring no red card until it is "
    "(govbus calendar load, docs/calendar.md)",
}
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
        console().print("stopped " + ", ".join(stopped) if stopped else "nothing was running")


def status(
    as_json: bool = JSON,
    alive: bool = typer.Option(False, "--alive", help="Only whether the parts answer: for a health check."),
    max_wait: int | None = typer.Option(
        None, "--max-wait", min=0, metavar="SECONDS",
        help="Exit code 1, with the reason, also if anything has waited for longer, or the log has lost records.",
    ),
) -> None:  # fmt: skip
    """Show every part, its address and whether it answers, and what waits on its way; exit code 1 if a part does not
    answer.
    """
    if alive and max_wait is not None:
        raise typer.BadParameter("--alive does not ask what waits", param_hint="--max-wait")
    settings = settings_module.load()
    report = _report(settings)
    whole = all(part["running"] for part in report)
    found, why = _behind(settings, max_wait) if whole and not alive else (None, "")
    overdue = [] if max_wait is None else [*filter(None, [why]), *_overdue(found or {}, max_wait)]
    _show(report, as_json, [], found, why, overdue)
    if overdue or not whole:
        raise typer.Exit(1)


def _behind(settings: Settings, max_wait: int | None) -> tuple[dict[str, Any] | None, str]:
    """``govbus.behind``; or None and why: tables or topics are not there yet, or not this release's, or an address has
    just gone.
    """
    import sqlalchemy as sa
    from kafka.errors import KafkaError

    from govbus import outages, runtime
    from govbus.behind import behind
    from schemas.errors import GovbusError
    from streams.store.engine import connect

    found = runtime.resolve(settings, prepare=False)
    engine = connect(found.database_url)
    told = bool(settings.webhooks or settings.digest_to)
    try:
        with engine.connect() as tx:
            return behind(tx, found.kafka, told, settings.clock, settings.timer_settle_ms, max_wait), ""
    except (GovbusError, KafkaError, sa.exc.DBAPIError) as error:
        known = error if isinstance(error, GovbusError) else outages.explained(error)
        return None, f"what waits is not known: {str(known or type(error).__name__).removeprefix('- ')}"
    finally:
        engine.dispose()


def _report(settings: Settings) -> list[dict[str, Any]]:
    from govbus import runtime

    stack = runtime.local_stack(settings)
    ours = [stack.asked(part) for part in stack.status() if runtime.needed(part.name, settings)]
    return [*map(asdict, ours), *_configured(settings)]


def _configured(settings: Settings) -> list[dict[str, Any]]:
    """The parts that lie elsewhere, asked whether they answer. Addresses are shown without passwords."""
    parts: list[dict[str, Any]] = []
    if settings.kafka:
        from connectors.local.broker import serves
        from schemas import access

        access.use(settings.kafka_access())
        answers = any(map(serves, settings.kafka.split(",")))  # of three brokers, two carry everything
        refused = None if answers else access.refusal(settings.kafka)
        parts.append({"name": "kafka", "running": answers, "address": settings.kafka, "why": str(refused or "")})
    if settings.database_url:
        address, answers, why = _database(settings.database_url)
        parts.append({"name": "postgres", "running": answers, "address": address, "why": why})
    return [{"pid": None, "data": "", "log": "", **part} for part in parts]


def _database(url: str) -> tuple[str, bool, str]:
    """The address, whether it answers, and what it says to whom it does not let in."""
    import sqlalchemy as sa

    from streams.store.engine import not_let_in

    parsed = sa.make_url(url)
    address = f"{parsed.host}:{parsed.port or 5432}/{parsed.database}"
    engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return address, True, ""
    except sa.exc.OperationalError as error:
        refused = not_let_in(error)
        return address, False, f"GOVBUS_DATABASE_URL: {refused}" if refused else ""


def _show(
    report: list[dict[str, Any]],
    as_json: bool,
    changed: list[str],
    behind: dict[str, Any] | None = None,
    why: str = "",
    overdue: Collection[str] = (),
) -> None:
    if as_json:
        told = {"parts": report, "changed": changed, "behind": behind, "why": why, "overdue": overdue}
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    table = Table("part", "state", "address", "pid", "log")
    for part in report:
        table.add_row(part["name"], _state(part), part["address"], str(part["pid"] or ""), part["log"])
    screen = console()
    screen.print(table)
    refused = [part["why"] for part in report if part.get("why")]
    for line in [*refused, *changed, *filter(None, [why]), *_waiting(behind or {})]:
        alarm = "alarm: " if line in overdue else ""
        screen.print(f"  {alarm}{line}", soft_wrap=True)


def _state(part: Mapping[str, Any]) -> Text:
    if part["running"]:
        return Text("running", "green")
    return Text("see below" if part.get("why") else "stopped", "red")


def _overdue(behind: Mapping[str, Any], max_wait: int) -> Iterator[str]:
    """Of what waits, in the same words, what has for more than ``max_wait`` seconds; and what the log has lost."""
    return (line for line, seconds in _aged(behind) if seconds > max_wait)


def _waiting(behind: Mapping[str, Any]) -> Iterator[str]:
    """What waits, in words; nothing that does not."""
    return (line for line, _ in _aged(behind))


def _aged(behind: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What waits, in words, and for how many seconds the oldest of it has; 0 where that is not known."""
    for name, words in WAITING.items():
        if behind.get(name):
            seconds = behind.get(f"{name}_ms", 0) / 1000
            since = f", the oldest for {seconds:,.1f} s" if seconds else ""
            yield f"{behind[name]:,} {words}{since}", seconds
    for name, records in behind.get("lag", {}).items():
        late = name in behind.get("late", ())
        since = ", the oldest for too long" if late else ""
        yield f"{name}: {records:,} records behind{since}", math.inf if late else 0
    for name, records in behind.get("lost", {}).items():
        yield f"{name}: the log has lost {records:,} records that were applied (govbus resend)", math.inf
