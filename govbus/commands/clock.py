"""``govbus clock``: a deadline explained, day by day. One that is described on the command line, by the calendars of
the package chinesecalendar, or those of a case or group in the database, by the calendars that were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.clock import SHANGHAI, iso

if TYPE_CHECKING:
    from streams.rules.calendar import Calendar
    from streams.rules.clock import Deadline, Pauses
    from streams.rules.clocks import Line
    from streams.rules.groups import Planned
    from streams.rules.limits import Limit

UNITS = {"wd": "1", "d": "2", "h": "3", "min": "4", "mo": "5"}
UNIT_NAMES = {"1": "个工作日", "2": "个自然日", "3": "小时", "4": "分钟", "5": "个月"}
KINDS = {
    "handling": "承诺时限",
    "statutory": "法定时限",
    "step": "环节",
    "acceptance": "受理答复",
    "delivery": "证照送达",
    "group": "全流程",
}
FIRST, LAST = datetime(1900, 1, 1, tzinfo=SHANGHAI), datetime.max.replace(tzinfo=SHANGHAI)
"""The moments at which publishers too may say that something happened, and that a date can be written of."""


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("clock")(clock)


def clock(
    accepted: Annotated[
        str, typer.Option(help="When the clock begins, ISO 8601 (Asia/Shanghai unless it says otherwise).")
    ] = "",
    limit: Annotated[
        float | None, typer.Option(help="The limit, in --unit; 0: on the spot (即办).", min=0, max=10_000)
    ] = None,
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
    kind: Annotated[
        str, typer.Option(help="handling, step, group; acceptance or delivery, whose limits the law gives.")
    ] = "handling",
    case: Annotated[str, typer.Option(help="Explain all clocks of this case, as it was applied.")] = "",
    group: Annotated[str, typer.Option(help="Explain this project or bundle: project/430903/CODE.")] = "",
    plan: Annotated[str, typer.Option(help="What a joint application will consist of: 430903/BUNDLE_CODE.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON to standard output.")] = False,
) -> None:
    """Explain a deadline day by day: one that is given, or those of a case or group. 时限计算说明."""
    import json

    if plan:
        report, show = _planned(plan), _show_parts
    elif case or group:
        report, show = _applied(case, group), _show_applied
    else:
        report, show = _given(kind, accepted, limit, unit, pause or [], extend, half_day), _show
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        show(report)


def _given(
    kind: str, accepted: str, amount: float | None, unit: str, pause: list[str], extend: float, half_day: str
) -> dict[str, Any]:
    """The report on a clock that is described on the command line."""
    from streams.rules import cards
    from streams.rules import clock as rule
    from streams.rules.calendar import DAY_MINUTES
    from streams.rules.limits import counting

    if half_day not in ("BUSINESS_MINUTES", "FIXED_4H", "SESSION"):
        raise typer.BadParameter("BUSINESS_MINUTES, FIXED_4H or SESSION", param_hint="--half-day")
    if kind not in KINDS:
        raise typer.BadParameter(f"one of {', '.join(KINDS)}", param_hint="--kind")
    limit, start = _limit(kind, amount, _unit(unit)), _minute(accepted, "--accepted")
    calendar, pauses = _calendar(), rule.union(_pause(text) for text in pause)
    how = rule.counting_in(counting(), half_day)  # type: ignore[arg-type]
    warning = cards.warning("handling" if kind == "acceptance" else kind, start // DAY_MINUTES)
    line = rule.deadline(calendar, start, limit, how, pauses, extend, warning)
    return {"clock": kind, "limit": limit.amount + extend, "unit": limit.unit, **_report(calendar, line, pauses)}


def _limit(kind: str, amount: float | None, unit: str) -> Limit:
    from streams.rules.limits import Limit, counting, delivery

    if amount is not None:
        return Limit(amount, unit)
    if kind == "acceptance":
        return counting().acceptance
    if kind == "delivery":
        return delivery().limit
    raise typer.BadParameter("is needed for this clock", param_hint="--limit")


def _applied(case: str, group: str) -> dict[str, Any]:
    """The report on what the database holds of a case or a group."""
    from govbus.runtime import district
    from streams.store import explain

    with district() as engine, engine.connect() as tx:
        found = explain.case(tx, case) if case else explain.group(tx, group)
    row = found.row
    head = {"case_no": row["case_no"], "status": row["status"]} if case else _whole(row, found.planned)
    lines = [{**_line(line), **_report(found.calendar, line.deadline, line.pauses)} for line in found.lines]
    return {**head, "department": row["department"], "clocks": lines, "cards": [_card(c) for c in found.cards]}


def _planned(text: str) -> dict[str, Any]:
    """The report on what a joint application will consist of, by the items in force today."""
    from govbus.runtime import district
    from schemas.clock import wall_clock
    from schemas.errors import Fault, Rejected
    from streams.rules.calendar import DAY_MINUTES, date_of, minute_of
    from streams.store import explain

    region, _, code = text.partition("/")
    day = minute_of(wall_clock()) // DAY_MINUTES
    with district() as engine, engine.connect() as tx:
        found = explain.plan(tx, region, code, day)
    if not found:
        mend = "write <region>/<bundle_code>; departments name it in bundle_codes of service.item.v1"
        raise Rejected(Fault("unknown_code", "plan", "no item in force is a part of it", mend))
    return {"plan": text, "on": date_of(day).isoformat(), "planned": [_part_to_come(p) for p in found]}


def _part_to_come(part: Planned) -> dict[str, Any]:
    about = {"item_code": part.item_code, "name": part.name, "department": part.department}
    return {**about, "limit": part.promise.amount, "unit": part.promise.unit}


def _whole(row: Mapping[str, Any], to_come: Sequence[Planned]) -> dict[str, Any]:
    names = ("case_no", "item_code", "department", "status", "accepted", "stopped")
    parts = [dict(zip(names, part, strict=True)) for part in row["parts"]]
    for part in parts:
        part["accepted"], part["stopped"] = _moment(part["accepted"]), _moment(part["stopped"])
    return {"group": row["group_key"], "status": row["stage"], "limit_rule": row["limit_rule"], "parts": parts,
            "planned": [_part_to_come(p) for p in to_come]}  # fmt: skip


def _line(line: Line) -> dict[str, Any]:
    return {
        "clock": line.clock,
        "step": line.subject,
        "limit": line.limit.amount,
        "unit": line.limit.unit,
        "pauses": [[_iso(start), _iso(end)] for start, end in line.pauses],
        "stopped": _moment(line.stopped_at),
        "on_time": line.on_time,
        "evidence": [*line.evidence, *([line.stopped_by] if line.stopped_by else [])],
    }


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("kind", "colour", "rule_id", "rule_version", "calendar_version", "revoked_reason", "evidence")
    times = {name: _moment(row[name]) for name in ("due_at", "issued_at", "revoked_at")}
    return {"alert_id": str(row["alert_id"]), **{name: row[name] for name in kept}, **times}


def _moment(at: int | None) -> str | None:
    return None if at is None else iso(at)


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
    local = at if at.tzinfo else at.replace(tzinfo=SHANGHAI)
    if not FIRST <= local <= LAST:
        raise typer.BadParameter("lies outside the years 1900 to 9999", param_hint=option)
    return minute_of(int(local.timestamp() * 1000))


def _pause(text: str) -> tuple[int, int | None]:
    start, _, end = text.partition("/")
    begin, finish = _minute(start, "--pause"), _minute(end, "--pause") if end else None
    if finish is not None and finish < begin:
        raise typer.BadParameter("ends before it starts", param_hint="--pause")
    return begin, finish


def _iso(minute: int | None) -> str | None:
    from streams.rules.calendar import epoch_ms

    return None if minute is None else iso(epoch_ms(minute))


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


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from govbus.screen import console

    screen = console(highlight=False)
    opened, minutes = _short(report["opened"]), report["counted_minutes"]
    amount = f"{report['limit']:g}{UNIT_NAMES[report['unit']]}"
    screen.print(f"时限：{amount}，自 {opened} 起算，共 {minutes} 分钟")
    due, yellow = _short(report["due"]), _short(report["yellow_at"])
    screen.print(Text.assemble("应于 ", (due, "bold"), " 前办结，黄牌预警 ", (yellow, "yellow")))
    if report["provisional"]:
        screen.print("所涉年份的放假安排尚未公布，期限为暂定。", style="yellow")
    table = Table("日期", "计入分钟")
    for day in report["days"]:
        table.add_row(day["day"], str(day["minutes"]))
    screen.print(table)


def _show_applied(report: dict[str, Any]) -> None:
    from rich.text import Text

    from govbus.screen import console

    screen = console(highlight=False)
    screen.print(f"{report.get('case_no') or report['group']} {report['status']} 责任部门 {report['department']}")
    _show_parts(report)
    for line in report["clocks"]:
        ended = {None: "进行中", True: "按时", False: "超时"}[line["on_time"]]
        title = Text(f"\n{KINDS[line['clock']]} {line['step']}", "bold")
        screen.print(title, f"{ended} {_short(line['stopped'] or '')}")
        for start, end in line["pauses"]:
            screen.print(f"  特别程序 {_short(start)} 至 {_short(end) if end else '今'}，不计入")
        _show(line)
    for card in report["cards"]:
        revoked = f"，{_short(card['revoked_at'])} 撤销（{card['revoked_reason']}）" if card["revoked_at"] else ""
        screen.print(f"{card['colour']} {card['rule_id']} {_short(card['issued_at'])} 发出{revoked}")


def _show_parts(report: dict[str, Any]) -> None:
    """What a group consists of, and what is still to come."""
    from govbus.screen import console

    screen = console(highlight=False)
    for part in report.get("parts", ()):
        screen.print(f"  {part['case_no']} {part['department']} {part['status']}")
    for part in report.get("planned", ()):
        limit = f"{part['limit']:g} {UNIT_NAMES[part['unit']]}"
        screen.print(f"  未申请 {part['name']} {part['department']} 承诺 {limit}（{part['item_code']}）")


def _short(text: str | None) -> str:
    return "（特别程序未结束，暂无期限）" if text is None else text[:16].replace("T", " ")
