"""``govbus calendar``: load a year's holidays, and see what a calendar did to clocks and cards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.clock import iso

if TYPE_CHECKING:
    import sqlalchemy as sa

    from streams.rules.redating import Redated

SOURCE = "国务院办公厅关于{year}年部分节假日安排的通知"
SHOWN = 50
GOOD = ("new", "same", "valid", "kept")
"""Outcomes after which a calendar of the year stands; ``kept``: another than the package's."""


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Working-day calendars: load a year, see what a revision did.")
    group.command("load")(load)
    group.command("effects")(effects)
    app.add_typer(group, name="calendar")


def load(
    dept: Annotated[str, typer.Option(help="Publishing department: code, name or alias.")],
    file: Annotated[Path | None, typer.Argument(help="CSV: from,to,kind,name (docs/calendar.md).")] = None,
    year: Annotated[int | None, typer.Option(help="The year that FILE is about.", min=2000, max=2099)] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="No FILE: the years that govbus brings along and that are not known yet.")
    ] = False,
    region: Annotated[str, typer.Option(help="GB/T 2260; 000000: the whole nation.")] = "000000",
    source: Annotated[str, typer.Option(help="Where it is from; the State Council's notice if empty.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, show, publish nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")] = False,
) -> None:
    """Publish the calendar of a year, as its first version or as the next revision; or, with --shipped, those of
    2004-2026, or of --year, that nobody has published yet. 发布年度节假日安排.
    """
    import json

    if shipped == (file is not None) or (source and shipped):
        raise typer.BadParameter("name a file and its --year, or --shipped without file and --source")
    if file is None:
        reports = _shipped(year, dept, region, dry_run)
    elif year is None:
        raise typer.BadParameter("is needed for a file", param_hint="--year")
    else:
        reports = [_from_file(file, year, dept, region, source, dry_run)]
    if as_json:
        typer.echo(json.dumps(reports if shipped else reports[0], ensure_ascii=False, default=str))
    else:
        for report in reports:
            (_show_year if shipped else _show_days)(report)
    raise typer.Exit(0 if all(report["outcome"] in GOOD for report in reports) else 1)


def _from_file(file: Path, year: int, dept: str, region: str, source: str, dry_run: bool) -> dict[str, Any]:
    """Publish the year of a file; raises ``Rejected`` if it says nothing new."""
    from connectors.intake import calendar, notice
    from govbus.runtime import district
    from schemas.clock import wall_clock
    from schemas.errors import Rejected

    with district() as engine:
        before = _latest(engine, region, year)
        row = calendar.calendar_row(
            year, occurred_at=wall_clock(), department=_code(dept), region=region,
            revision=1 if before is None else before["revision"] + 1, days=notice.days(file, year),
            source=source or SOURCE.format(year=year), hours=None if before is None else before["hours"],
        )  # fmt: skip
        if before is not None and _same(before, row):
            raise Rejected(_unchanged(before["calendar_version"]))
        return _published(engine, row, dept, dry_run)


def _shipped(year: int | None, dept: str, region: str, dry_run: bool) -> list[dict[str, Any]]:
    """Publish the package's years. One that has a calendar keeps it: a district may know better than the package."""
    from connectors.intake import calendar
    from govbus.runtime import district

    first, last = (year or calendar.FIRST), (year or calendar.LAST)
    if not calendar.FIRST <= first <= last <= calendar.LAST:
        raise typer.BadParameter(f"{calendar.FIRST} to {calendar.LAST} are shipped", param_hint="--year")
    rows = calendar.calendar_rows(first, last, occurred_at=calendar.AS_OF, department=_code(dept), region=region)
    reports = []
    with district() as engine:
        for row in rows:
            before = _latest(engine, region, row["year"]) or _on_its_way(engine, row)
            if before is None:
                reports.append(_published(engine, row, dept, dry_run))
            else:
                said = {"calendar_version": before["calendar_version"], "days": before["days"], "faults": []}
                reports.append({**said, "outcome": "same" if _same(before, row) else "kept"})
    return reports


def _published(engine: sa.Engine, row: dict[str, Any], dept: str, dry_run: bool) -> dict[str, Any]:
    """Publish one calendar, or only check it: its version, days and result."""
    from govbus.commands.publish import as_json as result_json
    from schemas.topics import CALENDAR

    publisher = _publisher(engine, dept, row["region"])
    result = next(iter(publisher.check(CALENDAR, [row]) if dry_run else publisher.publish(CALENDAR, [row])))
    return {"calendar_version": row["calendar_version"], "days": row["days"], **result_json(result)}


def effects(
    version: Annotated[str, typer.Argument(help="Version of the calendar, such as 2027-r1.")],
    region: Annotated[str, typer.Option(help="GB/T 2260; 000000: the whole nation.")] = "000000",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")] = False,
) -> None:
    """List the clocks of cases and groups that a calendar moved and the cards that it took back or brought; exit code
    1 while some are still to be judged again. 日历修订影响清单.
    """
    import json
    from itertools import chain

    from govbus.runtime import district
    from streams.store import redating

    with district() as engine, engine.connect().execution_options(isolation_level="REPEATABLE READ") as tx:
        calendar, whom = redating.published(tx, version, region)
        total = redating.concerned(tx, whom)
        blocks = chain(redating.moved(tx, calendar, whom), redating.moved_groups(tx, calendar, whom))
        changes = [c for found in _with_progress(blocks, total) for c in found]
        report = {
            "version": version, "region": region, "received_at": _iso(calendar.received_at), "looked_at": total,
            "pending": redating.pending(tx), "clocks": [_clock(c) for c in changes],
            "cards": [_card(c) for c in redating.cards(tx, calendar)],
        }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _show(report)
    raise typer.Exit(1 if report["pending"] else 0)


def _code(dept: str) -> str:
    from connectors.validate import department_code

    return department_code(dept) or dept


def _publisher(engine: sa.Engine, dept: str, region: str) -> Any:
    from connectors.publisher import Publisher

    return Publisher(engine, dept, region)


def _latest(engine: sa.Engine, region: str, year: int) -> dict[str, Any] | None:
    """The highest revision of the year that was applied: its body."""
    import sqlalchemy as sa

    from streams.store.tables import calendar_event

    c = calendar_event.c
    query = sa.select(c.body).where(c.region == region, c.year == year).order_by(c.revision.desc()).limit(1)
    with engine.connect() as tx:
        found: dict[str, Any] | None = tx.execute(query).scalar_one_or_none()
    return found


def _on_its_way(engine: sa.Engine, row: dict[str, Any]) -> dict[str, Any] | None:
    """The same revision of the year as it was published, if it was: it may not be applied yet, or not again since a
    rebuild.
    """
    import sqlalchemy as sa

    from schemas import codec, envelope
    from schemas.topics import CALENDAR
    from streams.store.tables import outbox

    event_id = envelope.event_id(CALENDAR, row)
    with engine.connect() as tx:
        query = sa.select(outbox.c.value).where(outbox.c.topic == CALENDAR.name, outbox.c.event_id == event_id)
        value = tx.execute(query).scalar_one_or_none()
    if value is None:
        return None
    record = codec.decode(bytes(value), CALENDAR)
    return {**record, "days": [{**d, "day": str(d["day"])} for d in record["days"]]}


def _same(before: dict[str, Any], row: dict[str, Any]) -> bool:
    return [(d["day"], d["working"]) for d in before["days"]] == [(str(d["day"]), d["working"]) for d in row["days"]]


def _unchanged(version: str) -> Any:
    from schemas.errors import Fault

    return Fault("conflict", "", f"the file says what {version} says already", "nothing needs to be loaded")


def _with_progress(blocks: Iterator[tuple[int, list[Redated]]], total: int) -> Iterator[list[Redated]]:
    from rich.progress import Progress

    from govbus.screen import console

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("cases", total=total)
        for count, found in blocks:
            bar.advance(task, count)
            yield found


def _iso(at: int | None) -> str | None:
    return None if at is None else iso(at)


def _clock(change: Redated) -> dict[str, Any]:
    return {**asdict(change), "due_before": _iso(change.due_before), "due_after": _iso(change.due_after)}


def _card(row: dict[str, Any]) -> dict[str, Any]:
    return {k: _iso(v) if k.endswith("_at") else v for k, v in row.items()}


def _show_year(report: dict[str, Any]) -> None:
    """One line of many: version, how many days differ from Mon-Fri, what became of it."""
    typer.echo(f"{report['calendar_version']} {len(report['days'])} 天 {report['outcome']}")
    for fault in report["faults"]:
        typer.echo(f"  {fault['reason']} {fault['field']} {fault['text']} {fault['mend']}")


def _show_days(report: dict[str, Any]) -> None:
    from rich.table import Table

    from govbus.screen import console

    screen = console()
    table = Table("日期", "安排", "节日", title=f"{report['calendar_version']}（只列与周一至周五不同的日子）")
    for day in report["days"]:
        table.add_row(str(day["day"]), "班" if day["working"] else "休", day["name"])
    screen.print(table)
    screen.print(f"{report['outcome']}")
    for fault in report["faults"]:
        screen.print(f"{fault['reason']} {fault['field']} {fault['text']} {fault['mend']}", style="red")


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    from govbus.screen import console

    screen = console()
    screen.print(f"日历 {report['version']}，{_short(report['received_at'])} 收到；查看办件 {report['looked_at']} 件")
    clocks, cards = report["clocks"], report["cards"]
    table = Table("办件", "责任部门", "时钟", "原期限", "新期限", title=f"期限变动 {len(clocks)} 项")
    for c in clocks[:SHOWN]:
        name = f"{c['clock']} {c['subject']}".strip()
        table.add_row(c["case_no"], c["department"], name, _due(c, "before"), _due(c, "after"))
    screen.print(table)
    table = Table("办件", "责任部门", "牌", "发牌", "撤牌", "原因", title=f"牌的变动 {len(cards)} 张")
    for c in cards[:SHOWN]:
        reason = "日历修订" if c["revoked_at"] else "期限变动后到期"
        table.add_row(c["case_no"], c["department"], f"{c['colour']} {c['rule_id']}", _short(c["issued_at"]),
                      _short(c["revoked_at"]), reason)  # fmt: skip
    screen.print(table)
    if max(len(clocks), len(cards)) > SHOWN:
        screen.print(f"各列前 {SHOWN} 项；--json 列出全部")
    if report["pending"]:
        screen.print(f"还有 {report['pending']} 件待重新计算，请稍后再看。", style="yellow")


def _due(clock: dict[str, Any], when: str) -> str:
    return _short(clock[f"due_{when}"]) + ("（暂定）" if clock[f"provisional_{when}"] else "")


def _short(text: str | None) -> str:
    return "" if text is None else text[:16].replace("T", " ")
