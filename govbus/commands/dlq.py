"""``govbus dlq list``, ``show``, ``redrive``, ``close``: what could not be accepted, why, and another chance."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from schemas.clock import iso

if TYPE_CHECKING:
    import sqlalchemy as sa

    from connectors.redrive import Redriven, Wanted

AS_JSON = typer.Option(False, "--json", help="Print JSON to standard output.")
REASON = typer.Option("", help="Only this reason (code set govbus.reason).")
TOPIC = typer.Option("", help="Only this topic.")
DEPT = typer.Option("", help="Only this department: its code, name or an alias.")
ORIGIN = typer.Option("", help="Only INTAKE or STREAM.")


NONE_OPEN = "none of these is open: govbus dlq show ID, or dlq list --redriven, says whether it was closed"


def register(app: typer.Typer) -> None:
    """Add the command group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be accepted.")
    group.command("list")(list_dead)
    group.command("show")(show)
    group.command("redrive")(redrive)
    group.command("close")(close)
    app.add_typer(group, name="dlq")


def list_dead(
    reason: str = REASON,
    topic: str = TOPIC,
    dept: str = DEPT,
    origin: str = ORIGIN,
    redriven: Annotated[
        bool, typer.Option(help="Also those that are closed: redriven, published since, or by hand.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many to list one by one.")] = 50,
    as_json: bool = AS_JSON,
) -> None:
    """Count dead letters by reason, topic and department, and list the latest. Shows no payload."""
    from connectors import redrive as dead
    from govbus.runtime import district

    wanted = _wanted((), reason, topic, dept, origin, redriven)
    with district() as engine:
        groups = [dict(row._mapping) for row in dead.counts(engine, wanted)]
        letters = [_head(row) for row in dead.find(engine, wanted, limit)]
    if as_json:
        typer.echo(json.dumps({"counts": groups, "letters": letters}, ensure_ascii=False))
    else:
        _print_list(groups, letters)


def show(
    dead_id: uuid.UUID,
    payload: Annotated[
        bool, typer.Option("--payload", help="Show the content, which may be personal.")
    ] = False,
    as_json: bool = AS_JSON,
) -> None:
    """Show one dead letter; its content only with --payload. Exit code 1 if there is none of that id."""
    from connectors import redrive as dead
    from govbus.runtime import district

    with district() as engine:
        rows = dead.find(engine, dead.Wanted((dead_id,), redriven=True))
    if not rows:
        raise _none(dead_id)
    report = _head(rows[0]) | {"digest": str(rows[0].digest), "bytes": len(rows[0].original)}
    if payload:
        report["payload"] = _payload(rows[0])
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        for name, value in report.items():
            typer.echo(f"{name:14} {value if value is not None else '-'}")


def redrive(
    ids: Annotated[
        list[uuid.UUID] | None, typer.Argument(help="Dead letters by id; or choose by options.")
    ] = None,
    reason: str = REASON,
    topic: str = TOPIC,
    dept: str = DEPT,
    origin: str = ORIGIN,
    file: Annotated[
        Path | None, typer.Option(help="Corrected row(s) in the place of one dead letter.")
    ] = None,
    encoding: Annotated[Literal["utf-8", "gb18030"], typer.Option(help="Encoding of a text file.")] = "utf-8",
    as_json: bool = AS_JSON,
) -> None:
    """Give dead letters another chance. Exit code 0 only if every one of them was accepted."""
    from connectors import redrive as dead
    from govbus.runtime import district

    wanted = _chosen(ids, reason, topic, dept, origin)
    with district() as engine:
        results = _with_file(engine, wanted, file, encoding) if file else _each(engine, wanted)
    _report(results, as_json)
    if not results and not as_json:
        typer.echo(NONE_OPEN, err=True)
    if not results or any(r.outcome not in dead.ACCEPTED for r in results):
        raise typer.Exit(1)


def close(
    why: Annotated[str, typer.Option(help="The reason, in words; it holds no personal data.")],
    ids: Annotated[list[uuid.UUID] | None, typer.Argument(help="Dead letters by id; or choose by options.")] = None,
    reason: str = REASON,
    topic: str = TOPIC,
    dept: str = DEPT,
    origin: str = ORIGIN,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: bool = AS_JSON,
) -> None:
    """Close dead letters that nothing need be sent for, and keep why. Exit code 1 if none of them is open."""
    from connectors import redrive as dead
    from govbus.runtime import district
    from schemas.errors import Misconfigured

    wanted, why = _chosen(ids, reason, topic, dept, origin), why.strip()
    if not why:
        raise Misconfigured("--why is empty: say in a few words why nothing need be sent")
    with district() as engine:
        found = sum(row.n for row in dead.counts(engine, wanted))
        if found and not yes:
            typer.confirm(f"Close {found:,} dead letters without sending anything?", abort=True, err=True)
        closed = dead.close(engine, wanted, why)
    typer.echo(json.dumps({"closed": closed}) if as_json else f"{closed:,} dead letters closed")
    if not closed:
        raise typer.Exit(1)


def _chosen(ids: list[uuid.UUID] | None, reason: str, topic: str, dept: str, origin: str) -> Wanted:
    """As ``_wanted``; raises ``Misconfigured`` where nothing in particular was asked for."""
    from schemas.errors import Misconfigured

    wanted = _wanted(tuple(ids or ()), reason, topic, dept, origin)
    if not wanted.chosen:
        raise Misconfigured("name dead letters by id, or choose them by --reason, --topic, --dept or --origin")
    return wanted


def _wanted(
    ids: tuple[uuid.UUID, ...], reason: str, topic: str, dept: str, origin: str, redriven: bool = False
) -> Wanted:
    """What was asked for, as the table has it."""
    from connectors.redrive import Wanted
    from govbus import asked

    reason = asked.code(reason, "--reason", "govbus.reason")
    origin = asked.code(origin, "--origin", "govbus.dead-origin")
    return Wanted(ids, reason, asked.topic(topic, "--topic"), asked.department(dept, "--dept"), origin, redriven)


def _each(engine: sa.Engine, wanted: Wanted) -> list[Redriven]:
    from rich.progress import track

    from connectors import redrive as dead
    from govbus.screen import console

    letters = dead.find(engine, wanted)
    bar = track(letters, "redriving", console=console(stderr=True), transient=True)
    return [dead.redrive(engine, letter) for letter in bar]


def _with_file(engine: sa.Engine, wanted: Wanted, file: Path, encoding: str) -> list[Redriven]:
    from connectors import redrive as dead
    from connectors.intake import files
    from schemas.errors import Misconfigured
    from schemas.topics import BY_NAME

    letters = dead.find(engine, wanted)
    if not letters:
        raise Misconfigured(NONE_OPEN)
    if len(letters) != 1:
        raise Misconfigured(f"--file goes in the place of one dead letter, {len(letters)} were chosen")
    rows = [row for _, row in files.open_rows(file, BY_NAME[letters[0].topic], encoding).rows()]
    return dead.replace_with(engine, letters[0], rows)


def _report(results: list[Redriven], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"results": [_result(r) for r in results]}, ensure_ascii=False))
        return
    for result in results:
        why = "; ".join(f"{f.reason} {f.field} {f.text}" for f in result.faults)
        typer.echo(f"{result.dead_id}  {result.outcome}  {why}".rstrip())
    typer.echo(f"{len(results)} dead letters")


def _result(result: Redriven) -> dict[str, Any]:
    return {
        "dead_id": str(result.dead_id),
        "outcome": result.outcome,
        "event_id": str(result.event_id) if result.event_id else None,
        "faults": [{"reason": f.reason, "field": f.field, "text": f.text} for f in result.faults],
    }


def _head(row: Any) -> dict[str, Any]:
    """What may be shown of a dead letter to everybody: no key, no content."""
    return {
        "dead_id": str(row.dead_id),
        "origin": row.origin,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "region": row.region,
        "department": row.department,
        "event_id": str(row.event_id) if row.event_id else None,
        "reason": row.reason,
        "field": row.field,
        "text": row.text,
        "occurred_at": iso(row.occurred_at, "milliseconds"),
        "redriven_at": iso(row.redriven_at, "milliseconds") if row.redriven_at else None,
        "closed_why": row.closed_why,
    }


def _payload(row: Any) -> Any:
    """The row as JSON or the decoded record; hexadecimal where it is neither, or kills whoever decodes it."""
    from schemas import codec
    from schemas.errors import Rejected
    from schemas.topics import BY_NAME
    from streams.store.quarantine import KILLS

    original = bytes(row.original)
    try:
        if row.origin == "INTAKE":
            return original.decode()
        if row.reason == KILLS:
            return original.hex()
        return json.dumps(codec.decode(original, BY_NAME.get(row.topic)), ensure_ascii=False, default=str)
    except (Rejected, UnicodeDecodeError):
        return original.hex()


def _print_list(groups: list[dict[str, Any]], letters: list[dict[str, Any]]) -> None:
    for group in groups:
        place = f"{group['topic']:26} {group['department']:10} {group['origin']}"
        typer.echo(f"{group['n']:7}  {group['reason']:24} {place}")
    for letter in letters:
        typer.echo(f"{letter['dead_id']}  {letter['reason']} {letter['field']} {letter['text']}")
    typer.echo(f"{sum(g['n'] for g in groups)} dead letters")


def _none(dead_id: uuid.UUID) -> Exception:
    from schemas.errors import GovbusError

    return GovbusError(f"there is no dead letter {dead_id}")
