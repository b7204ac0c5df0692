"""``govbus clock``: a deadline explained, day by day, from the published calendars of the package
chinesecalendar.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from streams.rules.calendar import Calendar
    from streams.rules.clock import Deadline, Pauses

UNITS = {"wd": "1", "d": "2", "h": "3", "min": "4", "mo": "5"}
UNIT_NAMES = {"1": "个工作日", "2": "个自然日", "3": "小时", "4": "分钟", "5": "个月"}
BEIJING = timezone(timedelta(hours=8))


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("clock")(clock)


def clock(
    accepted: Annotated[
        str, typer.Option(help="Acceptance, ISO 8601 (Asia/Shanghai unless it says otherwise).")
    ],
    limit: Annotated[
        float, typer.Option(help="The limit, in --unit; 0: on the spot (即办).", min=0, max=10_000)
    ],
    unit: Annotated[
        str, typer.Option(help="wd 工作日, d 自然日, h 小时, min 分钟, mo 月; or a govbus.limit-unit code.")
    ] = "wd",
    pause: Annotated[
        list[str] | None, typer.Option(help="START/END of a special procedure; no END: still open.")
    ] = None,
    extend: Annotated[float, typer.Option(help="Extension, in --unit.", min=0, max=10_000)] = 0.0,
    half_day: Annotated[
        str, typer.Option(help="BUSINESS_MINUTES, FIXED_4H or SESSION.")
    ] = "BUSINESS_MINUTES",
    as_json: Annotated[bool, typer.Option("--json", help="JSON to standard output.")] = False,
) -> None:
    """Explain a deadline. 时限计算说明."""
    import json

    from streams.rules import clock as rule
    from streams.rules.limits import Limit, counting

    if half_day not in ("BUSINESS_MINUTES", "FIXED_4H", "SESSION"):
        raise typer.BadParameter("BUSINESS_MINUTES, FIXED_4H or SESSION", param_hint="--half-day")
    calendar = _calendar()
    pauses = rule.union(_pause(text) for text in pause or [])
    how = rule.counting_in(counting(), half_day)  # type: ignore[arg-type]
    line = rule.deadline(
        calendar, _minute(accepted, "--accepted"), Limit(limit, _unit(unit)), how, pauses, extend
    )
    report = _report(calendar, line, pauses)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _show(report, limit + extend, _unit(unit))


def _calendar() -> Calendar:
    from connectors.intake.calendar import calendar_rows
    from streams.rules.calendar import NATION, CalendarHistory, Publication

    rows = calendar_rows(occurred_at=0, department="")
    return CalendarHistory(Publication.of({**row, "received_at": 0}) for row in rows).known_at(0, NATION)


def _unit(text: str) -> str:
    code = UNITS.get(text, text)
    if code not in UNIT_NAMES:
        raise typer.BadParameter(f"one of {', '.join(UNITS)}", param_hint="--unit")
    return code


def _minute(text: str, option: str) -> int:
    from streams.rules.calendar import minute_of

    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter("not an ISO 8601 time such as 2020-09-25T16:50", param_hint=option) from None
    local = at if at.tzinfo else at.replace(tzinfo=BEIJING)
    return minute_of(int(local.timestamp() * 1000))


def _pause(text: str) -> tuple[int, int | None]:
    start, _, end = text.partition("/")
    begin, finish = _minute(start, "--pause"), _minute(end, "--pause") if end else None
    if finish is not None and finish < begin:
        raise typer.BadParameter("ends before it starts", param_hint="--pause")
    return begin, finish


def _iso(minute: int | None) -> str | None:
    from streams.rules.calendar import epoch_ms

    return None if minute is None else datetime.fromtimestamp(epoch_ms(minute) / 1000, BEIJING).isoformat()


def _report(calendar: Calendar, line: Deadline, pauses: Pauses) -> dict[str, Any]:
    from streams.rules.calendar import date_of
    from streams.rules.clock import counted_days

    days = [
        {"day": str(date_of(day)), "minutes": count} for day, count in counted_days(calendar, line, pauses)
    ]
    return {
        "accepted": _iso(line.accepted),
        "opened": _iso(line.opened),
        "due": _iso(line.due),
        "yellow_at": _iso(line.yellow),
        "provisional": line.provisional,
        "counted_minutes": line.budget,
        "calendar_version": line.version,
        "days": days,
    }


def _show(report: dict[str, Any], limit: float, unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    opened, minutes = _short(report["opened"]), report["counted_minutes"]
    console.print(f"时限：{limit:g}{UNIT_NAMES[unit]}，自 {opened} 起算，共 {minutes} 分钟")
    due, yellow = _short(report["due"]), _short(report["yellow_at"])
    console.print(f"应于 [bold]{due}[/bold] 前办结，黄牌预警 [yellow]{yellow}[/yellow]")
    if report["provisional"]:
        console.print("[yellow]所涉年份的放假安排尚未公布，期限为暂定。[/yellow]")
    table = Table("日期", "计入分钟")
    for day in report["days"]:
        table.add_row(day["day"], str(day["minutes"]))
    console.print(table)


def _short(text: str | None) -> str:
    return "（特别程序未结束，暂无期限）" if text is None else text[:16].replace("T", " ")
