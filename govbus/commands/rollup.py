"""``govbus rollup``: sums of ratings (好差评汇总)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

BY = ("day", "department", "item", "channel", "region")


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Sums of ratings.")
    group.command("show")(show)
    group.callback()(lambda: None)
    app.add_typer(group, name="rollup")


def show(
    by: Annotated[
        str, typer.Option(help=f"Columns to group by, comma-joined: {', '.join(BY)}.")
    ] = "department",
    region: Annotated[str, typer.Option(help="Only this region (GB/T 2260); 6 digits: with its townships.")] = "",
    department: Annotated[str, typer.Option(help="Only this department: its code, name or an alias.")] = "",
    item: Annotated[str, typer.Option(help="Only this item.")] = "",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, Asia/Shanghai.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, Asia/Shanghai.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show effective ratings per level, good and bad shares; exit code 1 if there is none. 好差评汇总."""
    import json

    from govbus import asked
    from govbus.runtime import district
    from schemas.errors import Misconfigured
    from streams.store import rollups

    keys = [k.strip() for k in by.split(",") if k.strip()]
    if unknown := [k for k in keys if k not in BY]:
        raise Misconfigured(*(f"--by: no column {k!r}; there are {', '.join(BY)}" for k in unknown))
    office = asked.department(department, "--department")
    chosen = rollups.Filter(
        region, office, item, since.date() if since else None, until.date() if until else None
    )
    with district() as engine, engine.connect() as tx:
        rows = rollups.sums(tx, keys, chosen)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, default=str))
    else:
        _table(keys, rows)
    raise typer.Exit(0 if rows else 1)


TITLES = {"day": "日期", "department": "部门", "item": "事项", "channel": "渠道", "region": "区划"}


def _table(keys: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from govbus.screen import console

    table = Table(*(TITLES[k] for k in keys), title="好差评汇总")
    for title in (
        "非常满意",
        "满意",
        "基本满意",
        "不满意",
        "非常不满意",
        "合计",
        "默认评价",
        "好评率",
        "差评率",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        counts = [str(row[c]) for c in ("n5", "n4", "n3", "n2", "n1", "total", "defaults")]
        table.add_row(
            *(_named(k, row[k]) for k in keys), *counts, *(_share(row[c]) for c in ("good_rate", "bad_rate"))
        )
    console().print(table)


def _named(key: str, value: Any) -> str:
    from schemas import codesets

    sets = {"department": codesets.DEPARTMENTS, "channel": "govbus.channel", "region": "gbt2260.region"}
    return codesets.name(sets[key], value) if key in sets else str(value)


def _share(rate: float | None) -> str:
    return "—" if rate is None else f"{rate:.1%}"
