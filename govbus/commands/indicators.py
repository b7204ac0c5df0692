"""``govbus indicators``: the figures of the e-supervision (效能监察指标), each with its formula, and their recount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.clock import iso

if TYPE_CHECKING:
    import sqlalchemy as sa

    from streams.rules.indicators import Figure
    from streams.store.indicators import Report

BY = ("department", "level", "item", "region", "day", "month", "quarter", "year")
TITLES = {"department": "部门", "level": "层级", "item": "事项", "region": "区划", "day": "日", "month": "月",
          "quarter": "季度", "year": "年"}  # fmt: skip
COUNTS = ("late_service", "late_entry", "backfill", "red_cards", "yellow_cards")
PLAIN = {"average_minutes": ".0f", "satisfaction": ".1f"}
"""Figures that are no percentage."""


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Indicators, each with its formula, and their recount.")
    group.command("show")(show)
    group.command("late")(late)
    group.command("recount")(recount)
    app.add_typer(group, name="indicators")


def show(
    by: Annotated[str, typer.Option(help=f"Columns to group by, comma-joined: {', '.join(BY)}.")] = "department",
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, Asia/Shanghai.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, Asia/Shanghai.")] = None,
    department: Annotated[str, typer.Option(help="Only this department: its code, name or an alias.")] = "",
    region: Annotated[str, typer.Option(help="Only this region (GB/T 2260); 6 digits: with its townships.")] = "",
    public: Annotated[bool, typer.Option(help="As it may be published: cells below 5 are suppressed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the indicators; exit code 1 if there is nothing to count. 效能监察指标。"""
    import json

    from govbus import asked
    from govbus.settings import load
    from schemas.errors import Misconfigured
    from streams.store.indicators import Chosen, report

    keys = tuple(k.strip() for k in by.split(",") if k.strip())
    if unknown := [k for k in keys if k not in BY]:
        raise Misconfigured(*(f"--by: no column {k!r}; there are {', '.join(BY)}" for k in unknown))
    office = asked.department(department, "--department")
    chosen = Chosen(keys, since.date() if since else None, until.date() if until else None, office, region)
    with _snapshot() as tx:
        found = report(tx, chosen, load().clock)
    if as_json:
        typer.echo(json.dumps(as_dict(found, public), ensure_ascii=False, default=str))
    else:
        _print(found, public)
    raise typer.Exit(0 if found.groups else 1)


def late(
    department: Annotated[str, typer.Option(help="Only this department: its code, name or an alias.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List every case that is or looked overdue, and why; exit code 1 if there is none. 超期办件归因。"""
    import json

    from govbus import asked
    from govbus.settings import load
    from schemas import codesets
    from streams.store.indicators import late_cases

    office = asked.department(department, "--department")
    with _snapshot() as tx:
        rows = late_cases(tx, office, load().clock)
    for row in rows:
        if as_json:
            typer.echo(json.dumps(row, ensure_ascii=False))
            continue
        times = (("应办结", "due_at"), ("办结", "stopped_at"), ("录入", "entered_at"), ("收到", "received_at"))
        told = " ".join(f"{name} {iso(row[key])[:16]}" for name, key in times if row[key] is not None)
        label = codesets.name("govbus.lateness", row["label"])
        typer.echo(f"{label} {_named('department', row['department'])} 案件编号 {row['case_no']} {told}")
    raise typer.Exit(0 if rows else 1)


def recount(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Count once more from raw events by other code; exit code 0 only if both agree. 由原始事件复核。"""
    import json
    from dataclasses import asdict

    from govbus.recount import recount as count_again
    from govbus.screen import console
    from govbus.settings import load

    words = console(stderr=True)
    with _snapshot() as tx, words.status("复核 recounting") as status:
        found = count_again(tx, lambda n: status.update(f"复核 recounting: {n:,} events read"), load().clock)
    if as_json:
        told = {"equal": not found.differences, "checked": found.checked, "left_out": found.left_out,
                "differences": [asdict(d) for d in found.differences]}  # fmt: skip
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        _print_recount(found)
    raise typer.Exit(1 if found.differences else 0)


def as_dict(found: Report, public: bool) -> dict[str, Any]:
    """The report as others read it: what was asked, of when, up to which offsets, formulas and figures."""
    from streams.rules import indicators

    return {
        "query_id": found.query_id,
        "as_of": iso(found.as_of, "milliseconds"),
        "offsets": {t: {str(p): [0, o] for p, o in sorted(at.items())} for t, at in found.cursors.items()},
        "by": found.chosen.by,
        "since": found.chosen.since,
        "until": found.chosen.until,
        "definitions": {
            key: {"name": i.name, "formula": i.formula, "period": i.period, "source": i.source, "target": i.target}
            for key, i in indicators.indicators().items()
        },
        "definitions_version": indicators.version(),
        "groups": [
            {"key": dict(zip(found.chosen.by, key, strict=True)),
             "figures": {name: _figure(f) for name, f in _shown(figures, public).items()}}
            for key, figures in found.groups.items()
        ],
        "speed_up_excludes": [
            {"item_code": e.item_code, "department": e.department, "why": e.why} for e in found.excluded
        ],
        "calendar_excludes": _left_out(found, public),
    }  # fmt: skip


@contextmanager
def _snapshot() -> Iterator[sa.Connection]:
    """A connection that reads one snapshot."""
    from govbus.runtime import district

    with district() as engine, engine.connect().execution_options(isolation_level="REPEATABLE READ") as tx:
        yield tx


def _shown(figures: Mapping[str, Figure], public: bool) -> Mapping[str, Figure]:
    from streams.rules import indicators

    return indicators.published(figures) if public else figures


def _left_out(found: Report, public: bool) -> int | str:
    """How many cases wait for a calendar, as far as the public may know."""
    from streams.rules.indicators import Figure

    (figure,) = _shown({"": Figure(found.unpublished)}, public).values()
    return "<5" if figure.suppressed else found.unpublished


def _figure(figure: Figure) -> dict[str, Any]:
    if figure.suppressed:
        return {"value": None, "suppressed": "<5"}
    return {"value": figure.value, "numerator": figure.numerator, "denominator": figure.denominator}


def _print(found: Report, public: bool) -> None:
    from rich.table import Table

    from govbus.screen import console
    from streams.rules import indicators

    screen = console()
    for key, figures in found.groups.items():
        title = " ".join(_named(b, k) for b, k in zip(found.chosen.by, key, strict=True)) or "全部"
        table = Table("指标", title=title, title_justify="left")
        table.add_column("值", justify="right")
        table.add_column("分子 / 分母", justify="right")
        table.add_column("公式")
        for name, figure in _shown(figures, public).items():
            known = indicators.indicators()[name]
            table.add_row(known.name, *_texts(name, figure, known.target), known.formula)
        screen.print(table)
    screen.print(f"查询号 {found.query_id} · 截至 {iso(found.as_of, 'milliseconds')} · 口径版本 {indicators.version()}")
    if found.unpublished:
        mend = "（govbus calendar load，见 docs/calendar.md）"
        screen.print(f"{_left_out(found, public)} 件因日历未公布未计{mend}", style="dim")
    if found.excluded:
        screen.print(f"提速率未计入 {len(found.excluded)} 个事项（--json 列出名单与原因）", style="dim")


def _texts(name: str, figure: Figure, target: float | None) -> tuple[str, str]:
    if figure.suppressed:
        return "<5", "—"
    if figure.value is None:
        return "—", "0 / 0"
    if name in COUNTS:
        return f"{figure.numerator:.0f}", ""
    shown = format(figure.value, PLAIN.get(name, ".1%"))
    goal = f"（目标 {target:.0%}）" if target is not None else ""
    return shown + goal, f"{_amount(figure.numerator)} / {_amount(figure.denominator or 0)}"


def _amount(number: float) -> str:
    """Never with an exponent."""
    return f"{round(number, 2):.15g}"


def _named(key: str, value: str) -> str:
    from schemas import codesets

    sets = {"department": codesets.DEPARTMENTS, "level": "gbt39046.level", "region": "gbt2260.region"}
    return codesets.name(sets[key], value) if key in sets and value else f"{TITLES[key]} {value or '未知'}"


def _print_recount(found: Any) -> None:
    from govbus.screen import console

    screen = console()
    for what, count in found.checked.items():
        screen.print(f"{what}：复核 {count} 项")
    for why, count in found.left_out.items():
        screen.print(f"未复核：{count} 件（{why}）", style="dim")
    _differences(screen, found.differences)


def _differences(screen: Any, differences: Sequence[Any]) -> None:
    from rich.table import Table

    if not differences:
        screen.print("一致：两种算法结果相同", style="green")
        return
    table = Table("项目", "编号", "推算结果", "复核结果", title=f"不一致 {len(differences)} 处", style="red")
    for d in differences:
        table.add_row(d.what, d.key, d.derived, d.recounted)
    screen.print(table)
